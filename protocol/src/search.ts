import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { BusinessKey, ProducerGroupName, printable, TransactionId } from './names.js';
import { TransactionSummary } from './transaction-views.js';
import { StateName } from './transactions.js';

/** What `GET /v1/transactions` is asked for; what is absent does not matter. */
export interface SearchQuery {
  /** Only those in this state. */
  state?: StateName | undefined;
  /** Only those of this producer group. */
  producerGroup?: string | undefined;
  /** Only those with a message for this topic. */
  topic?: string | undefined;
  /** Only those with this business key. */
  businessKey?: string | undefined;
  /** Number of transactions in one answer, 1 to 200. */
  limit: number;
  /** The cursor of the previous page. */
  cursor?: string | undefined;
}

/** The same before it is parsed: everything in a query is text. */
export interface SearchQueryInput extends Omit<SearchQuery, 'limit'> {
  /** Number of transactions in one answer, 1 to 200. @default 50 */
  limit?: unknown;
}

/** `GET /v1/transactions`. */
export const SearchQuery = named<SearchQuery, SearchQueryInput>()(
  z.strictObject({
    state: StateName.optional(),
    producerGroup: ProducerGroupName.optional(),
    topic: printable(LIMITS.topicCharsMax).optional(),
    businessKey: BusinessKey.optional(),
    limit: z.coerce.number().int().min(1).max(LIMITS.searchPageMax).default(50),
    cursor: TransactionId.optional().describe('The cursor of the previous page'),
  }),
);

/** One page of transactions. */
export interface SearchAnswer {
  /** Newest first. */
  transactions: TransactionSummary[];
  /** There when more may follow: the `cursor` that asks for the next page. */
  cursor?: string | undefined;
}

/** Newest first; `cursor` is there when more may follow. */
export const SearchAnswer = named<SearchAnswer>()(
  z
    .object({ transactions: z.array(TransactionSummary), cursor: z.string().optional() })
    .meta({ id: 'SearchAnswer' }),
);
