import { EscrowError, PrepareRequest, SendRequest } from '@escrowmq/protocol';
import type { Found, Inserted, Verdict, VerdictResult } from '../../broker/src/domain/ports.js';
import { byProducer, type NewTransaction } from '../../broker/src/domain/transaction.js';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import { createIntake, type IntakeDeps } from '../../broker/src/engine/intake.js';
import { clockAt, currentId, NOW, producerGroup, recordingObserver } from './engine-fakes.js';

export const LEASE_MS = 30_000;
export interface IntakeOptions {
  insert?(batch: readonly NewTransaction[]): Promise<Inserted[]>;
  decide?(batch: readonly Verdict[], leaseMs: number): Promise<VerdictResult[]>;
  found?: Found[];
  leaseMs?: number;
  newId?: () => string;
}

/** An intake between callers and a store that keeps a record. */
export function takingIn(options: IntakeOptions = {}) {
  const inserted: NewTransaction[] = [];
  const verdicts: Verdict[][] = [];
  const moved: { ids: string[]; leaseLeftMs: number }[] = [];
  const observer = recordingObserver();
  const held = createHeldTransactions(10_000_000);
  const deps: IntakeDeps = {
    store: {
      insert(batch) {
        inserted.push(...batch);
        return options.insert?.(batch) ?? Promise.resolve(batch.map(() => ({ kind: 'created' })));
      },
      decide(batch, leaseMs) {
        verdicts.push([...batch]);
        return (
          options.decide?.(batch, leaseMs) ?? Promise.resolve(batch.map(() => ({ kind: 'moved' })))
        );
      },
      find: async (ids) =>
        new Map(
          (options.found ?? []).filter(({ id }) => ids.includes(id)).map((one) => [one.id, one]),
        ),
    },
    clock: clockAt(),
    groups: {
      cached: () => undefined,
      find: async (name) => (name === 'accounts' ? producerGroup() : undefined),
    },
    held,
    forwarder: {
      leaseMs: () => options.leaseMs ?? LEASE_MS,
      forwardMoved: (ids, leaseEndsAt) =>
        moved.push({ ids, leaseLeftMs: leaseEndsAt - performance.now() }),
    },
    newId: options.newId ?? currentId,
    observer,
  };
  return { intake: createIntake(deps), inserted, verdicts, moved, observer, held };
}

export const prepareRequest = (changes: object = {}) =>
  PrepareRequest.parse({
    id: currentId(),
    producerGroup: 'accounts',
    messages: [{ topic: 'user', data: 1 }],
    ...changes,
  });
export const sendRequest = (changes: object = {}) => SendRequest.parse(prepareRequest(changes));

export const verdictOn = (id: string, decision: 'commit' | 'rollback'): Verdict => ({
  id,
  decision,
  decidedBy: byProducer,
});

/** The code of the refusal, or `ok`. */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'ok';
  } catch (error) {
    if (error instanceof EscrowError) return error.code;
    throw error;
  }
}

export const record = { decision: 'commit', at: NOW, by: 'producer' } as const;
export const rolledBackRecord = { decision: 'rollback', at: NOW, by: 'operator ann' } as const;

export function row(id: string, state: Extract<Found, { kind: 'row' }>['state']): Found {
  const decided = state.state === 'rolledBack' ? rolledBackRecord : record;
  const undecided =
    state.state === 'prepared' || (state.state === 'parked' && state.reason === 'unresolved');
  return {
    kind: 'row',
    id,
    producerGroup: 'accounts',
    state,
    messageCount: 1,
    ...(undecided ? {} : { decision: decided }),
  };
}

export const forwardedRow = (id: string) => row(id, { state: 'forwarded', forwardedAt: NOW });
export const rolledBackRow = (id: string) => row(id, { state: 'rolledBack', decidedAt: NOW });
export const tombstone = (id: string): Found => ({
  kind: 'tombstone',
  id,
  producerGroup: 'accounts',
  decision: record,
});
