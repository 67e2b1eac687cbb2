import org.apache.rocketmq.client.producer.LocalTransactionState;

/** The local transaction of one call: it does nothing, and says when the client called it. */
final class LocalTransaction {
  /** Of System.nanoTime(). */
  long startedAt;

  LocalTransactionState run() {
    startedAt = System.nanoTime();
    return LocalTransactionState.COMMIT_MESSAGE;
  }
}
