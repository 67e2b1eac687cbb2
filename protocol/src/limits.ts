/**
 * Every limit of the protocol, in one place, each with the reason for its value. A refusal names
 * the limit, so that a caller can look it up here.
 */
export const LIMITS = {
  /** The `pending` mask of a transaction has one bit per message and is 32 bits wide. */
  messagesPerTransactionMax: 32,
  /** One transaction as JSON. RabbitMQ 4 refuses messages over 16 MiB; 1 MiB keeps batches quick. */
  transactionBytesMax: 1024 * 1024,
  /** One `POST /v1/batch`. Large enough for a full batch of small transactions. */
  batchBytesMax: 8 * 1024 * 1024,
  /** Measured: an operation costs about 2 µs in a batch of 50; beyond 500 only latency grows. */
  operationsPerBatchMax: 500,
  /** AMQP short strings hold 255 bytes; queue names carry a topic and a consumer group. */
  topicCharsMax: 100,
  /** A queue name carries it beside a topic, within 255 bytes. */
  groupCharsMax: 64,
  /** An AMQP short string. */
  routingKeyBytesMax: 255,
  /** It stands in an index. */
  businessKeyCharsMax: 128,
  /** Each is a row of its own. */
  businessKeysPerTransactionMax: 16,
  /** The receipts of each are waited for and kept. */
  expectedGroupsMax: 16,
  /** It is kept with the transaction and comes back in every check. */
  checkContextBytesMax: 1024,
  /** Beside them the broker's own have to fit into one AMQP frame. */
  headersPerMessageMax: 32,
  /** An AMQP short string has 255 bytes. */
  headerNameCharsMax: 128,
  /** 32 of them fit into one AMQP frame beside the broker's own. */
  headerValueBytesMax: 1024,
  /** Longer than any registered media type. */
  contentTypeCharsMax: 128,
  /** An AMQP short string. */
  contentTypeBytesMax: 255,
  /** Deeper JSON could exhaust the stack of whoever walks it. */
  dataDepthMax: 64,
  /** Instances stand behind one URL; these are for several sites. */
  checkUrlsPerGroupMax: 8,
  /** What common servers take. */
  checkUrlCharsMax: 2048,
  /** A message may wait for a year; what is further away belongs into the service's own calendar. */
  delayMsMax: 366 * 24 * 60 * 60 * 1000,
  /** It stands in an index. */
  orderingKeyCharsMax: 128,
  /** It travels as a header. */
  cloudEventsAttributeCharsMax: 256,
  /** A check may be put off for at most a day: later than that, nobody remembers why. */
  checkAfterMsMax: 24 * 60 * 60 * 1000,
  /** Tombstones are kept 30 days; an older id could have been purged with its tombstone. */
  idAgeMsMax: 29 * 24 * 60 * 60 * 1000,
  /** How far a caller's clock may run ahead of the store's. */
  idAheadMsMax: 60 * 60 * 1000,
  /** A long poll ends before common proxies cut it. */
  waitMsMax: 30_000,
  /** As many as a policy's `concurrencyMax` may be; a poll brings as many answers. */
  checksPerPollMax: 64,
  /** At one broker. Each holds a connection, and an instance of a producer needs one. */
  pollsPerGroupMax: 256,
  /** Transactions in one page of a search. */
  searchPageMax: 200,
  /** A few sentences on record. */
  reasonCharsMax: 500,
  /** The name of a person. */
  operatorCharsMax: 100,
  /** As many as a batch of operations has. */
  receiptsPerMessageMax: 500,
  /** The beginning of an error, for headers, receipts and displays. */
  causeCharsMax: 500,
  /** One `queue.bind` each on every connect. */
  routingKeysPerSubscriptionMax: 100,
  /** Each distinct delay costs a quorum queue. */
  retryDelaysMax: 32,
  /** As many as there are ordering slots. */
  partitionsMax: 32,
  /** A queue, its dead letters, and as many retry queues and partitions as there may be. */
  announcedQueuesMax: 66,
  /** 100 routing keys and 66 queues of 255 bytes, escaped, and the rest. */
  announcementBytesMax: 128 * 1024,
} as const;
