import java.io.IOException;
import java.util.Arrays;

/**
 * Runs the main method of a server of RocketMQ, and ends this JVM at once when standard input does:
 * its other end is held by the bench, however that ends.
 */
final class DieWithParent {
  private DieWithParent() {}

  /** Takes the name of the class and its arguments. */
  public static void main(String[] args) throws ReflectiveOperationException {
    Thread watcher = new Thread(DieWithParent::watch, "die-with-parent");
    watcher.setDaemon(true);
    watcher.start();
    Class.forName(args[0])
        .getMethod("main", String[].class)
        .invoke(null, (Object) Arrays.copyOfRange(args, 1, args.length));
  }

  private static void watch() {
    try {
      while (System.in.read() >= 0) {
        // Nobody writes; what counts is the end.
      }
    } catch (IOException error) {
      System.err.println("standard input can't be read, so the bench can't be watched: " + error);
    }
    // Not exit: a graceful shutdown would go on for seconds, with nobody left to wait for it.
    Runtime.getRuntime().halt(1);
  }
}
