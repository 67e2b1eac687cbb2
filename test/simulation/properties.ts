import type { State } from '../../broker/src/domain/transaction.js';
import { idValue } from '../../producer-sdk/src/local/barrier-sql.js';
import type { Released } from '../../producer-sdk/src/local/telling.js';
import type { MemoryDatabase } from './memory-database.js';
import type { MemoryStore, Row } from './memory-store.js';
import type { PlannedTransaction } from './plan.js';
import type { Process } from './scheduler.js';

/**
 * What must hold, judged by what is durable and by what people were told:
 *
 * - not lost: what committed locally is forwarded, and applied by the consumer
 * - no phantom: what did not, never reaches RabbitMQ, and nothing does before both commits are durable
 * - applied once, and never altered
 * - nothing stuck: every transaction is finished when all has healed
 * - decisions never reverse, and what is finished never changes
 * - conservation: what was acknowledged is there, and nothing that nobody prepared
 */
/** What a caller was told. */
export type Outcome = 'committed' | 'unknown' | 'rolledBack';

interface Told {
  by: Process;
  outcome?: Outcome;
  /** After a commit that the callback made by itself. */
  messages?: Released | undefined;
}

export class Properties {
  readonly planned: readonly PlannedTransaction[];
  readonly #broken: string[] = [];
  readonly #store: MemoryStore;
  readonly #producer: MemoryDatabase;
  readonly #consumer: MemoryDatabase;
  readonly #told = new Map<string, Told>();
  readonly #acknowledged = new Set<string>();

  constructor(over: {
    store: MemoryStore;
    producer: MemoryDatabase;
    consumer: MemoryDatabase;
    planned: readonly PlannedTransaction[];
  }) {
    this.planned = over.planned;
    this.#store = over.store;
    this.#producer = over.producer;
    this.#consumer = over.consumer;
  }

  broken(what: string): void {
    this.#broken.push(what);
  }

  onBegin(id: string, by: Process): void {
    this.#told.set(id, { by });
  }

  onEnd(id: string, outcome: Outcome, messages?: Released): void {
    const told = this.#told.get(id);
    if (told !== undefined) Object.assign(told, { outcome, messages });
  }

  onAcknowledged(op: 'prepare' | 'commit', id: string): void {
    this.#acknowledged.add(`${op} ${id}`);
  }

  onMove({ id, state: from, decision }: Row, to: State): void {
    if (from.state === 'forwarded' || from.state === 'rolledBack') {
      this.broken(`reversed: ${id} was ${from.state} and became ${to.state}`);
    }
    if (decision?.decision === 'commit' && (to.state === 'rolledBack' || to.state === 'prepared')) {
      this.broken(`reversed: ${id} was decided commit and became ${to.state}`);
    }
  }

  onArrival(messageId: string, body: string): void {
    const planned = this.planned.find(({ id }) => messageId.startsWith(`${id}-`));
    if (planned === undefined) {
      this.broken(`phantom: nobody prepared ${messageId}`);
      return;
    }
    const { id, data } = planned;
    const said = JSON.stringify(data[Number(messageId.slice(id.length + 1))]);
    if (body !== said) this.broken(`altered: ${messageId} says ${body} and not ${said}`);
    if (this.#store.rows.get(id)?.decision?.decision !== 'commit') {
      this.broken(`phantom: ${messageId} reached RabbitMQ before its commit`);
    }
    if (!this.#producer.written.has(id)) {
      this.broken(`phantom: ${messageId} reached RabbitMQ before its local commit`);
    }
  }

  /** Nobody waits for an answer, and the broker owes nothing. */
  isSettled(): boolean {
    for (const { by, outcome } of this.#told.values()) {
      if (by.isAlive && outcome === undefined) return false;
    }
    for (const { state } of this.#store.rows.values()) {
      if (state.state === 'prepared' || state.state === 'committed') return false;
    }
    return true;
  }

  /** At the end of a run. */
  judge(): string[] {
    for (const planned of this.planned) this.#judge(planned);
    let applied = 0;
    for (const planned of this.planned) {
      const { data, id } = planned;
      const expected = this.#isOwed(planned) ? 1 : 0;
      data.forEach((value, number) => {
        const times = this.#applied(id, number, value);
        applied += times;
        if (times === expected) return;
        const kind = times > 1 ? 'applied again' : times === 1 ? 'phantom' : 'lost';
        this.broken(`${kind}: ${id}-${number} was applied ${times} times, not ${expected}`);
      });
    }
    let written = 0;
    for (const times of this.#consumer.written.values()) written += times;
    if (written !== applied) this.broken(`altered: ${written - applied} were applied otherwise`);
    return this.#broken;
  }

  #isOwed(planned: PlannedTransaction): boolean {
    const { id } = planned;
    if (!this.#producer.written.has(id)) return false;
    return this.#store.rows.has(id) || !this.#mayBeMissing(planned);
  }

  /**
   * A callback that commits by itself may do so before the broker holds its messages. The SDK tries to
   * hand them over late; without a broker nobody can, and then whoever called is told, if he lives.
   */
  #mayBeMissing({ id, ending }: PlannedTransaction): boolean {
    const { outcome, messages } = this.#told.get(id) ?? {};
    if (ending !== 'commitByMistake') return false;
    if (outcome === undefined || outcome === 'unknown') return true;
    return messages === 'notHeld' || messages === 'unknown';
  }

  #judge({ id }: PlannedTransaction): void {
    const row = this.#store.rows.get(id);
    const isCommitted = this.#producer.written.has(id);
    const { outcome, messages } = this.#told.get(id) ?? {};
    if (outcome === 'committed' && !isCommitted) {
      this.broken(`lied: ${id} was told committed and is not there`);
    }
    if (outcome === 'rolledBack' && isCommitted) {
      this.broken(`lied: ${id} was told rolled back and is there`);
    }
    if (messages === 'notHeld' && row !== undefined) {
      this.broken(`lied: ${id} was told to be held by nobody and is ${row.state.state}`);
    }
    if (row === undefined) {
      if (this.#acknowledged.has(`prepare ${id}`)) this.broken(`lost: ${id} was prepared`);
      return;
    }
    const { state } = row.state;
    if (state !== 'forwarded' && state !== 'rolledBack') this.broken(`stuck: ${id} is ${state}`);
    if (this.#acknowledged.has(`commit ${id}`) && state !== 'forwarded') {
      this.broken(`lost: the commit of ${id} was acknowledged, and it is ${state}`);
    }
    const barrier = this.#producer.rows.get(`barrier ${idValue(id)}`);
    if (isCommitted !== (barrier === 'commit')) {
      this.broken(`the barrier of ${id} says ${barrier}, its local transaction otherwise`);
    }
    if (isCommitted !== (state === 'forwarded')) {
      this.broken(`${isCommitted ? 'lost' : 'phantom'}: ${id} is ${state} at the broker`);
    }
  }

  #applied(id: string, number: number, value: string): number {
    return this.#consumer.written.get(`${id}-${number} ${JSON.stringify(value)}`) ?? 0;
  }
}
