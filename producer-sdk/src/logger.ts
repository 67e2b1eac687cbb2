/** Where the SDK reports what it cannot throw. Any pino-like logger fits. */
export interface Logger {
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

/** The default: nothing that happened to a transaction stays unsaid because nobody set a logger. */
export const consoleLogger: Logger = {
  warn: (fields, message) => console.warn(message, fields),
  error: (fields, message) => console.error(message, fields),
};
