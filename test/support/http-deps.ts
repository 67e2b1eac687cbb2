import { createHash } from 'node:crypto';
import {
  type BusinessKeyAnswer,
  CheckPolicy,
  EscrowError,
  type ProducerGroupAnswer,
  type TransactionAnswer,
  type TransactionView,
  type WebhookAnswer,
  WebhookSettings,
} from '@escrowmq/protocol';
import type { ApiKey } from '../../broker/src/http/api-keys.js';
import type { HttpDeps } from '../../broker/src/http/deps.js';
import type { createHttpServer } from '../../broker/src/http/server.js';

export type HttpServer = ReturnType<typeof createHttpServer>;
/** A request as `inject` takes it. */
export interface Injected {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  url?: string;
  headers?: Record<string, string>;
  payload?: string | object;
}

/** The group that owns every transaction of `fakeDeps`, and the id of the only one there is. */
export const OWN_GROUP = 'accounts';
export const OTHER_GROUP = 'billing';
export const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
export const UNKNOWN_ID = '0198f3c2-7a10-7cc3-98c4-000000000000';

export const PREPARE = { id: ID, producerGroup: OWN_GROUP, messages: [{ topic: 'user', data: 1 }] };

/** Every call that got through, by name and arguments. */
type Calls = [name: string, ...args: unknown[]][];

export interface FakeDeps extends HttpDeps {
  calls: Calls;
  failures: [what: string, error: unknown][];
}

const answer = (state: TransactionAnswer['state'], id = ID): TransactionAnswer => ({ id, state });

const view: TransactionView = {
  id: ID,
  producerGroup: OWN_GROUP,
  state: 'prepared',
  preparedAt: 1,
  settled: false,
  businessKeys: [],
  expects: [],
  checks: { unknown: 0, unanswered: 0 },
  forwarding: { failedAttempts: 0 },
  messages: [],
  groups: [],
  receipts: [],
  compensations: [],
  history: [],
};

/** Functions in the place of the engine: one transaction of one group, and a record of calls. */
export function fakeDeps(overrides: Partial<HttpDeps> = {}): FakeDeps {
  const calls: Calls = [];
  const failures: FakeDeps['failures'] = [];
  const group: ProducerGroupAnswer = {
    producerGroup: OWN_GROUP,
    checkUrls: [],
    checkPolicy: CheckPolicy.parse({}),
  };
  const webhook: WebhookAnswer = {
    name: 'billing',
    topic: 'orders',
    group: 'billing',
    ...WebhookSettings.parse({ url: 'https://billing.example/hook' }),
    state: 'active',
    version: 0,
  };
  const deps: HttpDeps = {
    prepare: async (request) => ({ created: true, answer: answer('prepared', request.id) }),
    send: async (request) => ({ created: true, answer: answer('committed', request.id) }),
    decide: async ({ id, decision, producerGroup = OWN_GROUP }) => {
      if (id !== ID || producerGroup !== OWN_GROUP) {
        throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
      }
      return answer(decision === 'commit' ? 'committed' : 'rolledBack');
    },
    resolve: async () => answer('committed'),
    cancel: async (id, _request, producerGroup = OWN_GROUP) => {
      if (id !== ID || producerGroup !== OWN_GROUP) {
        throw new EscrowError('TRANSACTION_NOT_FOUND', `there is no transaction ${id}`);
      }
      return { id, state: 'forwarded', cancelled: [0] };
    },
    view: async (id) => (id === ID ? view : undefined),
    search: async () => ({ transactions: [] }),
    registerGroup: async () => ({ created: true, answer: { ...group, signingSecret: 'whsec_x' } }),
    findGroup: async (name) => (name === OWN_GROUP ? group : undefined),
    waitForTransaction: async () => undefined,
    waitForBusinessKey: async (businessKey): Promise<BusinessKeyAnswer> => ({
      businessKey,
      settled: true,
      transactions: [],
    }),
    pollChecks: async () => [],
    saveWebhook: async () => ({ created: true, answer: { ...webhook, signingSecret: 'whsec_x' } }),
    describeWebhook: async (name) => (name === webhook.name ? webhook : undefined),
    listWebhooks: async () => [webhook],
    deleteWebhook: async (name) => ({ name, queues: ['escrow:orders:billing'] }),
    readiness: async () => ({ ready: true, degraded: false, checks: { store: 'ok' } }),
    metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }),
    observer: { failed: (what, error) => failures.push([what, error]), info: () => {} },
    ...overrides,
  };
  for (const name of Object.keys(deps) as (keyof HttpDeps)[]) {
    if (name === 'observer') continue;
    const real = deps[name] as (...args: unknown[]) => Promise<unknown>;
    Object.assign(deps, {
      [name]: (...args: unknown[]) => {
        calls.push([name, ...args]);
        return real(...args);
      },
    });
  }
  return { ...deps, calls, failures };
}

const sha256 = (key: string) => createHash('sha256').update(key).digest();

export const KEYS: ApiKey[] = [
  { name: 'accounts-service', role: { producer: OWN_GROUP }, sha256: sha256('own-key') },
  { name: 'billing-service', role: { producer: OTHER_GROUP }, sha256: sha256('other-key') },
  { name: 'alice', role: 'operator', sha256: sha256('operator-key') },
];
