import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Durations in nanoseconds, collected by one thread. */
final class Latencies {
  private long[] values = new long[1024];
  private int count;

  void add(long nanoseconds) {
    if (count == values.length) values = Arrays.copyOf(values, 2 * count);
    values[count++] = nanoseconds;
  }

  int count() {
    return count;
  }

  /** Quantiles of all of them by nearest rank, in milliseconds, as JSON. */
  static String json(List<Latencies> all) {
    long[] sorted =
        all.stream()
            .flatMapToLong(one -> Arrays.stream(one.values, 0, one.count))
            .sorted()
            .toArray();
    return String.format(
        Locale.ROOT,
        "{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}",
        quantile(sorted, 0.5),
        quantile(sorted, 0.9),
        quantile(sorted, 0.99),
        quantile(sorted, 1));
  }

  private static double quantile(long[] sorted, double share) {
    int rank = Math.max(1, (int) Math.ceil(share * sorted.length));
    return sorted[rank - 1] / 1e6;
  }
}
