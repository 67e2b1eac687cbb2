import { FlagError, parseFlags } from './flags.js';
import { runSoak } from './run-soak.js';

/** npm run soak: thousands of transactions under hundreds of faults, then the checker. */
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
