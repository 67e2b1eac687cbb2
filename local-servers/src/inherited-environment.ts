/**
 * This process's environment without the variables a server would read as its own settings: they
 * are meant for another instance on this machine.
 */
export function inheritedEnvironment(except: RegExp): Record<string, string> {
  const entries = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !except.test(entry[0]),
  );
  return Object.fromEntries(entries);
}
