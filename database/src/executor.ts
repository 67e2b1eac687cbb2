import type { Executor, SqlValue } from './database.js';
import { type Bringer, readRows } from './read-rows.js';
import { unavailable } from './unavailable.js';

/** How a layer sends a statement on one connection. */
export interface Sender extends Bringer {
  /**
   * Begins to send before it returns, so that two in one turn arrive side by side.
   *
   * @returns the rows of a select as the layer gives them; anything for other statements
   */
  send(sql: string, values: readonly SqlValue[]): Promise<unknown>;
}

/** The executor on a layer: what it reads is looked at, and a database that is away is called so. */
export function executorOn(sender: Sender): Executor {
  async function sent(sql: string, values: readonly SqlValue[] = []): Promise<unknown> {
    try {
      return await sender.send(sql, values);
    } catch (error) {
      throw unavailable(error, sender.layer);
    }
  }
  return {
    async execute(sql, values) {
      await sent(sql, values);
    },
    select: async (sql, columns, values) => readRows(await sent(sql, values), columns, sender),
  };
}
