import java.util.concurrent.Callable;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;

/** One closed loop: the next transaction starts when the last one is over. */
final class Loop implements Callable<Loop> {
  private final TransactionMQProducer producer;
  private final byte[] body;
  private final long endsAt;
  private final Latencies prepare = new Latencies();
  private final Latencies send = new Latencies();

  /**
   * @param endsAt of System.nanoTime(): no transaction is started after it
   */
  Loop(TransactionMQProducer producer, Settings settings, long endsAt) {
    this.producer = producer;
    this.endsAt = endsAt;
    body = new byte[settings.dataBytes()];
    ThreadLocalRandom.current().nextBytes(body);
  }

  @Override
  public Loop call() throws Exception {
    for (long now = System.nanoTime(); now < endsAt; ) {
      LocalTransaction transaction = new LocalTransaction();
      TransactionSendResult sent =
          producer.sendMessageInTransaction(new Message(Client.TOPIC, body), transaction);
      long ended = System.nanoTime();
      // Any other status is rolled back by the client, any other state was not ours to choose.
      if (sent.getSendStatus() != SendStatus.SEND_OK
          || sent.getLocalTransactionState() != LocalTransactionState.COMMIT_MESSAGE) {
        throw new IllegalStateException("a transaction did not commit: " + sent);
      }
      prepare.add(transaction.startedAt - now);
      send.add(ended - now);
      now = ended;
    }
    return this;
  }

  long operations() {
    return send.count();
  }

  /** Until the half message was acknowledged. */
  Latencies prepare() {
    return prepare;
  }

  /** The whole call; the commit is handed to the connection at its end, not acknowledged. */
  Latencies send() {
    return send;
  }
}
