/** As many as two full windows; what is forgotten goes with the others again. */
const SUSPECTS_MAX = 4_000;

/**
 * Messages that were in flight when one of them closed their channel or connection, and RabbitMQ did
 * not say which. Each is tried alone until it has an outcome of its own.
 */
export class Suspects {
  readonly #ids = new Set<string>();

  has(messageId: string): boolean {
    return this.#ids.size > 0 && this.#ids.has(messageId);
  }

  add(messageId: string): void {
    if (this.#ids.size >= SUSPECTS_MAX) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
    this.#ids.add(messageId);
  }

  clear(messageId: string): void {
    if (this.#ids.size > 0) this.#ids.delete(messageId);
  }
}
