import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * The load for RocketMQ: closed loops of transactions whose local transaction commits at once.
 *
 * <p>Gets its settings as one JSON argument, prints {@code ready}, waits for a line {@code go},
 * runs, prints one JSON line and ends. A transaction here is one call of
 * sendMessageInTransaction: the half message is stored and acknowledged, the local transaction
 * runs, and the commit is sent one-way, so nobody tells the producer whether it arrived. The clock
 * therefore stops only when the topic holds every committed message.
 */
final class TransactionLoad {
  /**
   * Loads in Node are warm after a second. Here the rate was 4,400/s after 1 s, 5,600 after 3 s and
   * 8,400 after 10 s. With 256 threads a run after 10 s cost the client 63 to 177 µs of CPU per
   * transaction, since its code was still being compiled; after 18 s it was 61 to 78 µs.
   */
  private static final double WARM_UP_SECONDS = 20;

  private TransactionLoad() {}

  public static void main(String[] args) throws Exception {
    try {
      run(Settings.parse(args));
      // The client's threads are no daemons, and some outlive its shutdown by seconds.
      System.exit(0);
    } catch (ExecutionException error) {
      fail(error.getCause());
    } catch (Exception error) {
      fail(error);
    }
  }

  private static void run(Settings settings) throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(settings.concurrency());
    try (Client client = Client.open(settings)) {
      // Counted like the run itself, so that nothing of the warm-up is still on its way then.
      client.expect(operations(loop(client, threads, settings, WARM_UP_SECONDS)));
      client.waitUntilVisible();
      long checksBefore = client.checks();

      System.out.println("ready");
      waitForGo();
      long startedAt = System.nanoTime();
      List<Loop> loops = loop(client, threads, settings, settings.seconds());
      long operations = operations(loops);
      client.expect(operations);
      client.waitUntilVisible();
      double seconds = (System.nanoTime() - startedAt) / 1e9;

      System.out.println(result(operations, seconds, loops, client.checks() - checksBefore));
    } finally {
      threads.shutdown();
    }
  }

  private static List<Loop> loop(
      Client client, ExecutorService threads, Settings settings, double seconds) throws Exception {
    long endsAt = System.nanoTime() + (long) (seconds * 1e9);
    List<Loop> loops = new ArrayList<>();
    for (int index = 0; index < settings.concurrency(); index++) {
      loops.add(new Loop(client.producer(index), settings, endsAt));
    }
    // Waits for all, and throws what any of them threw.
    for (Future<Loop> ended : threads.invokeAll(loops)) ended.get();
    return loops;
  }

  private static long operations(List<Loop> loops) {
    return loops.stream().mapToLong(Loop::operations).sum();
  }

  private static void waitForGo() throws Exception {
    BufferedReader input =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    String line = input.readLine();
    if (!"go".equals(line)) throw new IllegalStateException("expected go, and read " + line);
  }

  private static String result(long operations, double seconds, List<Loop> loops, long checks) {
    String prepare = Latencies.json(loops.stream().map(Loop::prepare).toList());
    String send = Latencies.json(loops.stream().map(Loop::send).toList());
    return String.format(
        Locale.ROOT,
        "{\"operations\":%d,\"seconds\":%.4f,\"counts\":{\"checks\":%d},"
            + "\"latencyMs\":{\"prepare\":%s,\"send\":%s}}",
        operations,
        seconds,
        checks,
        prepare,
        send);
  }

  private static void fail(Throwable error) {
    System.err.println("the RocketMQ load failed: " + error);
    System.exit(1);
  }
}
