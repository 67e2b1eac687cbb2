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
  groupCharsMax: 64,
  routingKeyBytesMax: 255,
  businessKeyCharsMax: 128,
  businessKeysPerTransactionMax: 16,
  expectedGroupsMax: 16,
  checkContextBytesMax: 1024,
  headersPerMessageMax: 32,
  headerNameCharsMax: 128,
  headerValueBytesMax: 1024,
  contentTypeCharsMax: 128,
  /** An AMQP short string. */
  contentTypeBytesMax: 255,
  /** Deeper JSON could exhaust the stack of whoever walks it. */
  dataDepthMax: 64,
  checkUrlsPerGroupMax: 8,
  checkUrlCharsMax: 2048,
  /** A message may wait for a year; what is further away belongs into the service's own calendar. */
  delayMsMax: 366 * 24 * 60 * 60 * 1000,
  orderingKeyCharsMax: 128,
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
  searchPageMax: 200,
  reasonCharsMax: 500,
  operatorCharsMax: 100,
  receiptsPerMessageMax: 500,
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
