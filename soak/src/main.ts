import { FlagError, parseFlags } from './flags.js';
import { runSoak } from './run-soak.js';

/** npm run soak: thousands of transactions under hundreds of faults, then the checker. */
// Ends as any exit does: with all processes, and with the folder left as it is.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

try {
  const isClean = await runSoak(parseFlags(process.argv.slice(2)));
  process.exit(isClean ? 0 : 1);
} catch (error) {
  process.stderr.write(
    error instanceof FlagError
      ? `${error.message}\n`
      : `${String(error instanceof Error ? error.stack : error)}\n`,
  );
  process.exit(1);
}
