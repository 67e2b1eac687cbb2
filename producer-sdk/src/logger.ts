import { createStderrLog, tellForeign } from '@escrowmq/database';

/** Where the SDK reports what it cannot throw. Any pino-like logger fits. */
export interface Logger {
  /**
   * What somebody should know and nobody has to act on.
   * @default it is told as a warning
   */
  info?(fields: Record<string, unknown>, message: string): void;
  /** What went wrong and is tried again. */
  warn(fields: Record<string, unknown>, message: string): void;
  /** What went wrong and somebody has to look at. */
  error(fields: Record<string, unknown>, message: string): void;
}

type Level = 'warn' | 'error';

/** Those that this module made, which need no guard. */
const GUARDED = new WeakSet<object>();

/**
 * The logger that the SDK tells: never throws, whatever the user's does. A line that the user's fails to
 * take, because it throws, rejects or has no such function, goes to stderr; that it failed is said there
 * once.
 *
 * @param given by the user @default stderr, bounded: nothing stays unsaid because nobody set a logger
 */
export function loggerOf(given: Logger | undefined): Required<Logger> {
  if (given !== undefined && GUARDED.has(given)) return given as Required<Logger>;
  const say = createStderrLog('escrowmq producer');
  let hasSaidSo = false;
  const toStderr = (level: Level, fields: Record<string, unknown>, message: string) => {
    const { error, ...others } = fields;
    const thrown = error === undefined ? {} : { thrown: { error } };
    say({ level, kind: message, text: message, fields: others, ...thrown });
  };
  const failed = (level: Level, error: unknown) => {
    if (hasSaidSo) return;
    hasSaidSo = true;
    const text = `the logger failed at a line of level ${level}; what it does not take goes here`;
    say({ level: 'error', kind: text, text, thrown: { error } });
  };
  const tell =
    (name: keyof Logger, level: Level) =>
    (fields: Record<string, unknown>, message: string): void => {
      if (given === undefined) {
        toStderr(level, fields, message);
        return;
      }
      tellForeign(
        () =>
          name === 'info' && given.info !== undefined
            ? given.info(fields, message)
            : given[level](fields, message),
        (error) => {
          failed(level, error);
          toStderr(level, fields, message);
        },
      );
    };
  const logger: Required<Logger> = {
    info: tell('info', 'warn'),
    warn: tell('warn', 'warn'),
    error: tell('error', 'error'),
  };
  GUARDED.add(logger);
  return logger;
}
