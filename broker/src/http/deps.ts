import type {
  BusinessKeyAnswer,
  CancelAnswer,
  CancelRequest,
  CheckRequest,
  Decision,
  MessageData,
  PollChecksRequest,
  PrepareRequest,
  ProducerGroupAnswer,
  ProducerGroupRequest,
  ResolveRequest,
  SearchAnswer,
  SearchQuery,
  SendRequest,
  TransactionAnswer,
  TransactionView,
  WebhookAnswer,
  WebhookDeleted,
  WebhookRequest,
} from '@escrowmq/protocol';
import type { Observer } from '../domain/ports.js';
import type { TraceContext } from '../domain/transaction.js';

/** What the broker can do, as the HTTP floor needs it. Rejections are `EscrowError`s. */
export interface HttpDeps {
  prepare(request: PrepareRequest, trace: TraceContext): Promise<Accepted>;
  send(request: SendRequest, trace: TraceContext): Promise<Accepted>;
  /**
   * With `producerGroup`, another group's transaction is as good as absent. Rejects with
   * `TRANSACTION_NOT_FOUND`, or `STATE_CONFLICT` with the decision on record in its details; a commit
   * whose data does not fit what prepare left open with `MESSAGE_DATA_MISSING`, `INVALID_REQUEST` or
   * `BODY_TOO_LARGE`.
   */
  decide(verdict: {
    id: string;
    decision: Decision;
    producerGroup?: string | undefined;
    /** Of a commit: what prepare left open. */
    messageData?: MessageData[] | undefined;
  }): Promise<TransactionAnswer>;
  resolve(id: string, request: ResolveRequest): Promise<TransactionAnswer>;
  /**
   * With `producerGroup`, another group's transaction is as good as absent. Rejects with
   * `TRANSACTION_NOT_FOUND`, `INVALID_REQUEST` or `MESSAGE_NOT_CANCELLABLE`.
   */
  cancel(
    id: string,
    request: CancelRequest,
    producerGroup: string | undefined,
  ): Promise<CancelAnswer>;
  view(id: string): Promise<TransactionView | undefined>;
  search(query: SearchQuery): Promise<SearchAnswer>;
  registerGroup(
    name: string,
    request: ProducerGroupRequest,
    /** The name of the caller's key. */
    by: string | undefined,
  ): Promise<{ created: boolean; answer: ProducerGroupAnswer }>;
  /** As for a business key, until this transaction can not settle by itself any more. */
  waitForTransaction(id: string, waitMs: number, signal: AbortSignal): Promise<void>;
  /** Without the secret. */
  findGroup(name: string): Promise<ProducerGroupAnswer | undefined>;
  /**
   * When `signal` aborts, the wait ends at once: with what is known by then, or by rejecting with
   * the signal's reason.
   */
  waitForBusinessKey(
    key: string,
    waitMs: number,
    producerGroup: string | undefined,
    signal: AbortSignal,
  ): Promise<BusinessKeyAnswer>;
  /** Ends at once, and empty, when `signal` aborts. */
  pollChecks(
    poll: PollChecksRequest & { producerGroup: string; signal: AbortSignal },
  ): Promise<CheckRequest[]>;
  saveWebhook(
    name: string,
    request: WebhookRequest,
  ): Promise<{ created: boolean; answer: WebhookAnswer }>;
  /** Without the secret. */
  describeWebhook(name: string): Promise<WebhookAnswer | undefined>;
  listWebhooks(): Promise<WebhookAnswer[]>;
  /** Rejects with `RABBITMQ_UNAVAILABLE` when the webhook could only be disabled. */
  deleteWebhook(name: string): Promise<WebhookDeleted>;
  readiness(): Promise<{ ready: boolean; degraded: boolean; checks: Record<string, string> }>;
  metrics(): Promise<{ contentType: string; body: string }>;
  observer: Pick<Observer, 'failed' | 'info'>;
}

export interface Accepted {
  /** False for a repeat. */
  created: boolean;
  answer: TransactionAnswer;
}
