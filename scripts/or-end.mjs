/** What a shell calls a command that was called wrongly. */
const USAGE = 2;

/** What `read` makes of the arguments; or its error in one line, and the end. */
export function orEnd(read) {
  try {
    return read();
  } catch (error) {
    return end(error.message, USAGE);
  }
}

/** One line to whoever called, and the end of the process. */
export function end(line, exitCode) {
  process.stderr.write(`${line}\n`);
  process.exit(exitCode);
}
