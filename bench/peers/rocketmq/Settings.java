import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;

/**
 * What the bench asks for.
 *
 * @param nameServer {@code host:port}
 * @param concurrency closed loops, one thread each
 * @param seconds no loop starts a transaction after that
 * @param dataBytes length of the body
 * @param connections clients, each with one connection to the broker; the loops are dealt to them
 */
record Settings(
    String nameServer, int concurrency, double seconds, int dataBytes, int connections) {

  static Settings parse(String[] args) {
    if (args.length != 1) {
      throw new IllegalArgumentException("expected one argument, a JSON object of settings");
    }
    JSONObject json = JSON.parseObject(args[0]);
    String nameServer = json.getString("nameServer");
    if (nameServer == null) throw new IllegalArgumentException("settings lack nameServer");
    return new Settings(
        nameServer,
        (int) positive(json, "concurrency"),
        positive(json, "seconds"),
        (int) positive(json, "dataBytes"),
        (int) positive(json, "connections"));
  }

  private static double positive(JSONObject json, String name) {
    double value = json.getDoubleValue(name);
    if (value <= 0) {
      throw new IllegalArgumentException(
          "settings need a " + name + " greater than 0, and have " + json.get(name));
    }
    return value;
  }
}
