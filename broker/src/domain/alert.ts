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
export interface BrokerAlert {
  kind: 'receiptsRefused';
  queue: string;
  detail: string;
}
