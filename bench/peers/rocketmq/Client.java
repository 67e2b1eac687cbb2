import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.topic.TopicValidator;

/** The producers, the topic they send to, and the count of what has become visible in it. */
final class Client implements AutoCloseable {
  static final String TOPIC = "bench-transactions";

  private static final String PRODUCER_GROUP = "bench-producers";
  private static final int QUEUES = 8;

  /** The broker tells the name server about itself while it starts, and again every 30 s. */
  private static final long TOPIC_DEADLINE_MS = 40_000;

  /** A lost commit is found by a check: 6 s old at the earliest, and looked for every 30 s. */
  private static final long VISIBLE_DEADLINE_MS = 75_000;

  private static final long POLL_MS = 5;
  private static final long ROUTE_POLL_MS = 200;

  private final List<TransactionMQProducer> producers = new ArrayList<>();
  private final AtomicLong checks = new AtomicLong();
  private List<MessageQueue> queues = List.of();
  private long expected;

  private Client() {}

  /** Connects, makes the topic, and takes what it holds already as the base of the count. */
  static Client open(Settings settings) throws Exception {
    Client client = new Client();
    for (int index = 0; index < settings.connections(); index++) {
      client.producers.add(client.connect(settings, index));
    }
    client.queues = client.makeTopic();
    client.expected = client.visible();
    return client;
  }

  TransactionMQProducer producer(int loop) {
    return producers.get(loop % producers.size());
  }

  /** How often the broker asked what became of a transaction: its commit had not arrived. */
  long checks() {
    return checks.get();
  }

  /** Says that so many more messages were committed. */
  void expect(long committed) {
    expected += committed;
  }

  /** Returns when a consumer could read every committed message. */
  void waitUntilVisible() throws Exception {
    long startedAt = System.nanoTime();
    for (long visible = visible(); visible != expected; visible = visible()) {
      if (visible > expected || millisSince(startedAt) > VISIBLE_DEADLINE_MS) {
        throw new IllegalStateException(
            expected + " messages were committed, and the topic holds " + visible
                + " (" + checks() + " checks)");
      }
      Thread.sleep(POLL_MS);
    }
  }

  @Override
  public void close() {
    producers.forEach(TransactionMQProducer::shutdown);
  }

  private TransactionMQProducer connect(Settings settings, int index) throws MQClientException {
    TransactionMQProducer producer = new TransactionMQProducer(PRODUCER_GROUP);
    producer.setNamesrvAddr(settings.nameServer());
    // Clients of one name share a connection.
    producer.setInstanceName("bench-" + index);
    producer.setTransactionListener(
        new TransactionListener() {
          @Override
          public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return ((LocalTransaction) argument).run();
          }

          @Override
          public LocalTransactionState checkLocalTransaction(MessageExt message) {
            // Every local transaction of this load commits, so that is the answer.
            checks.incrementAndGet();
            return LocalTransactionState.COMMIT_MESSAGE;
          }
        });
    producer.start();
    return producer;
  }

  private List<MessageQueue> makeTopic() throws Exception {
    long startedAt = System.nanoTime();
    for (;;) {
      try {
        producers.get(0).createTopic(
            TopicValidator.AUTO_CREATE_TOPIC_KEY_TOPIC, TOPIC, QUEUES, Map.of());
        List<MessageQueue> found = producers.get(0).fetchPublishMessageQueues(TOPIC);
        if (found.size() == QUEUES) return found;
      } catch (MQClientException error) {
        // The name server does not know the broker, or the broker the topic, yet.
        if (millisSince(startedAt) > TOPIC_DEADLINE_MS) throw error;
      }
      Thread.sleep(ROUTE_POLL_MS);
    }
  }

  /** Messages that consumers can see: the queues are filled after the log, from the log. */
  private long visible() throws MQClientException {
    long sum = 0;
    for (MessageQueue queue : queues) sum += producers.get(0).maxOffset(queue);
    return sum;
  }

  private static long millisSince(long nanoTime) {
    return (System.nanoTime() - nanoTime) / 1_000_000;
  }
}
