/** What somebody has to look at, once each. */
export interface Alert {
  kind:
    | 'checkUnanswered'
    | 'parked'
    | 'forwardFailing'
    | 'compensationUnanswered'
    | 'consumedAfterCompensation';
  transactionId: string;
  producerGroup: string;
  detail: string;
}

/** Of the broker as a whole, and of no transaction. */
export type BrokerAlert =
  | { kind: 'receiptsRefused'; queue: string; detail: string }
  /** One queue of it is full or failed: RabbitMQ nacks what the others have taken. */
  | { kind: 'topicNacked'; topic: string; detail: string };

/** What many transactions have in common, told once for all of them. */
export interface SettlementAlert {
  kind: 'settlementOverdue' | 'lateReceipts';
  producerGroup?: string;
  consumerGroup: string;
  /** How many transactions, or receipts. */
  count: number;
  /** Ids of some of the transactions. */
  examples: string[];
  detail: string;
}
