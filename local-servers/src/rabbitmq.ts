import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect as openSocket } from 'node:net';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { connect } from 'amqplib';
import type { RabbitmqBinaries } from './binaries.js';
import { inRoot } from './in-root.js';
import { inheritedEnvironment } from './inherited-environment.js';
import { Lifeline, type ServerProcess } from './lifeline.js';
import { rabbitmqOf } from './programs.js';
import type { ServerSet } from './server-sets.js';
import { onFreePorts, waitUntilReady } from './start-up.js';

/** 5 to 8 s here; two cores shared with a full test run may take several times that. */
const START_DEADLINE_MS = 90_000;

/** A graceful stop took 3 s, and 8 s with management; one that hangs ends in SIGKILL. */
const STOP_GRACE_MS = 30_000;

/** rabbitmqctl takes 0.7 s, unless the node is starting or stopping. */
const CTL_TIMEOUT_MS = 60_000;

export interface PrivateRabbitmqOptions {
  /** Runs the management plugin and sets `managementUrl`; costs 2 s at start, 5 s at stop. @default false */
  management?: boolean;
  /** Lines for rabbitmq.conf, after our own. @default none */
  conf?: readonly string[];
  /** The folder in which the server's own folder is made. @default the system's temporary folder */
  parentDir?: string;
  /** Which set it is of. @default what ESCROW_TEST_SERVERS names, else the machine's packages */
  servers?: ServerSet | undefined;
}

interface Ports {
  amqp: number;
  distribution: number;
  epmd: number;
  management: number;
  /** rabbitmqctl is an Erlang node as well and listens while it runs. */
  ctl: number;
}

/**
 * A RabbitMQ of our own: own ports, data folder, cookie and epmd, so that it runs beside any other
 * instance. It ends, and its folder goes, when this process does.
 *
 * Trap for crash tests, seen on 3.10.8: a quorum queue declared shortly before `kill()` is gone
 * for good after `restart()`, with its confirmed messages. Declare, `restart()` once, then crash;
 * or use a durable classic queue.
 */
export class PrivateRabbitmq {
  /** AMQP port on 127.0.0.1. */
  readonly port: number;
  /** `amqp://guest:guest@127.0.0.1:<port>` */
  readonly url: string;
  /** `http://guest:guest@127.0.0.1:<port>`, when started with `management`. */
  readonly managementUrl: string | undefined;
  /** The server's own folder, with `rabbitmq.log`. */
  readonly dir: string;
  readonly nodeName: string;
  readonly #lifeline: Lifeline;
  readonly #binaries: RabbitmqBinaries;
  readonly #env: Record<string, string>;
  #server: ServerProcess | undefined;

  private constructor(lifeline: Lifeline, binaries: RabbitmqBinaries, settings: Settings) {
    const { ports, options } = settings;
    this.#lifeline = lifeline;
    this.#binaries = binaries;
    this.dir = lifeline.dir;
    this.port = ports.amqp;
    this.url = `amqp://guest:guest@127.0.0.1:${ports.amqp}`;
    this.managementUrl = options.management
      ? `http://guest:guest@127.0.0.1:${ports.management}`
      : undefined;
    // From the folder's name, which is unique where a port may be contested.
    this.nodeName = `${basename(lifeline.dir)}@localhost`;
    this.#env = nodeEnvironment(this.dir, this.nodeName, ports);
  }

  /** @internal Use `startPrivateRabbitmq`. */
  static async launch(binaries: RabbitmqBinaries, settings: Settings): Promise<PrivateRabbitmq> {
    const lifeline = await Lifeline.open('rabbitmq', settings.options.parentDir);
    try {
      writeConfiguration(lifeline.dir, settings);
      // In the foreground: the epmd that a node starts by itself outlives it and listens everywhere.
      const epmd = lifeline.start({
        root: binaries.root,
        command: binaries.epmd,
        args: ['-address', '127.0.0.1', '-port', String(settings.ports.epmd)],
        env: erlangEnvironment(),
        log: 'epmd.log',
      });
      await waitUntilReady(epmd, () => opens(settings.ports.epmd), {
        name: `epmd on port ${settings.ports.epmd}`,
        deadlineMs: START_DEADLINE_MS,
      });
      const rabbitmq = new PrivateRabbitmq(lifeline, binaries, settings);
      await rabbitmq.#start();
      return rabbitmq;
    } catch (error) {
      await lifeline.close();
      throw error;
    }
  }

  /** A graceful stop; the data stays for `restart()`. */
  async stop(): Promise<void> {
    await this.#server?.terminate(STOP_GRACE_MS);
  }

  /** SIGKILL to the whole process group, as a crash would do; the data stays for `restart()`. */
  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  /** Stops gracefully what still runs, then starts on the same data, ports and node name. */
  async restart(): Promise<void> {
    await this.stop();
    await this.#start();
  }

  /**
   * Runs rabbitmqctl against this node.
   * @example await rabbitmq.ctl('set_vm_memory_high_watermark', '0'); // blocks every publisher
   * @returns what it printed on standard output, without its headings
   */
  async ctl(...args: string[]): Promise<string> {
    const { root, ctl } = this.#binaries;
    const inside = inRoot(root, this.dir, {
      command: ctl,
      args: ['--quiet', '--node', this.nodeName, ...args],
      env: this.#env,
    });
    const { stdout } = await promisify(execFile)(inside.command, inside.args, {
      env: inside.env,
      cwd: this.dir,
      timeout: CTL_TIMEOUT_MS,
    });
    return stdout;
  }

  /** Kills the server and deletes its folder. The handle is of no use afterwards. */
  async remove(): Promise<void> {
    await this.#lifeline.close();
  }

  async #start(): Promise<void> {
    this.#server = this.#lifeline.start({
      root: this.#binaries.root,
      command: this.#binaries.server,
      args: [],
      env: this.#env,
      log: 'rabbitmq.log',
    });
    await waitUntilReady(this.#server, () => this.#answers(), {
      name: `RabbitMQ ${this.nodeName}`,
      deadlineMs: START_DEADLINE_MS,
    });
  }

  async #answers(): Promise<void> {
    const connection = await connect(this.url);
    // Without a listener, losing this connection would end the process; the next attempt tells.
    connection.on('error', () => {});
    // Every private RabbitMQ has the same user, so the login alone does not prove who answers.
    const answering: unknown = connection.connection.serverProperties.cluster_name;
    await connection.close();
    // RabbitMQ calls a cluster by its first node's name, with the machine's full name behind the @.
    if (String(answering).split('@')[0] !== basename(this.dir)) {
      throw new Error(`port ${this.port} is answered by ${answering}`);
    }
    if (this.managementUrl !== undefined) {
      const url = new URL('/api/overview', this.managementUrl);
      const authorization = `Basic ${Buffer.from('guest:guest').toString('base64')}`;
      url.username = '';
      url.password = '';
      const response = await fetch(url, { headers: { authorization } });
      if (!response.ok) throw new Error(`the management plugin answers ${response.status}`);
    }
  }
}

interface Settings {
  ports: Ports;
  options: PrivateRabbitmqOptions;
}

/**
 * Starts a RabbitMQ that belongs to this process, and installs it first where that is possible
 * (see `ensureServerPackages`). Ready means that it accepts AMQP connections.
 *
 * @throws Error when RabbitMQ is not installed and can't be, or does not start; it carries the log
 * @example
 * const rabbitmq = await startPrivateRabbitmq();
 * try {
 *   const connection = await amqplib.connect(rabbitmq.url);
 * } finally {
 *   await rabbitmq.remove();
 * }
 */
export async function startPrivateRabbitmq(
  options: PrivateRabbitmqOptions = {},
): Promise<PrivateRabbitmq> {
  const binaries = await rabbitmqOf(options.servers);
  return onFreePorts(5, ([amqp = 0, distribution = 0, epmd = 0, management = 0, ctl = 0]) => {
    const ports = { amqp, distribution, epmd, management, ctl };
    return PrivateRabbitmq.launch(binaries, { ports, options });
  });
}

function writeConfiguration(dir: string, { ports, options }: Settings): void {
  mkdirSync(join(dir, 'home'));
  // Erlang refuses a cookie that others may read.
  writeFileSync(join(dir, 'home', '.erlang.cookie'), `escrowmq${ports.amqp}`, { mode: 0o400 });
  const plugins = options.management ? 'rabbitmq_management' : '';
  writeFileSync(join(dir, 'enabled_plugins'), `[${plugins}].\n`);
  const conf = [
    `listeners.tcp.1 = 127.0.0.1:${ports.amqp}`,
    ...(options.management
      ? ['management.tcp.ip = 127.0.0.1', `management.tcp.port = ${ports.management}`]
      : []),
    'loopback_users = none',
    'log.console = false',
    // A small disk must not turn every test into a test of the disk alarm.
    'disk_free_limit.absolute = 50MB',
    ...(options.conf ?? []),
  ];
  writeFileSync(join(dir, 'rabbitmq.conf'), `${conf.join('\n')}\n`);
}

/** Every path is named: what is left out is taken from /etc/rabbitmq and /var/lib/rabbitmq. */
function nodeEnvironment(dir: string, nodeName: string, ports: Ports): Record<string, string> {
  return {
    ...erlangEnvironment(),
    HOME: join(dir, 'home'),
    // The script then becomes the Erlang VM instead of waiting for it: a signal reaches the VM
    // itself, and its exit is the exit we see.
    RUNNING_UNDER_SYSTEMD: 'true',
    RABBITMQ_NODENAME: nodeName,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(ports.amqp),
    RABBITMQ_DIST_PORT: String(ports.distribution),
    RABBITMQ_CTL_DIST_PORT_MIN: String(ports.ctl),
    RABBITMQ_CTL_DIST_PORT_MAX: String(ports.ctl),
    RABBITMQ_MNESIA_BASE: join(dir, 'data'),
    RABBITMQ_LOG_BASE: join(dir, 'logs'),
    RABBITMQ_PID_FILE: join(dir, 'rabbitmq.pid'),
    RABBITMQ_CONFIG_FILE: join(dir, 'rabbitmq.conf'),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(dir, 'advanced.config'),
    // Does not exist; without it /etc/rabbitmq/rabbitmq-env.conf wins over this environment.
    RABBITMQ_CONF_ENV_FILE: join(dir, 'no-rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(dir, 'enabled_plugins'),
    RABBITMQ_GENERATED_CONFIG_DIR: join(dir, 'generated'),
    // Two schedulers that sleep when idle: the node shares its cores with what is being tested.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:
      '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none',
    ERL_EPMD_PORT: String(ports.epmd),
    ERL_EPMD_ADDRESS: '127.0.0.1',
  };
}

/** Resolves when somebody accepts connections on that port of loopback. */
async function opens(port: number): Promise<void> {
  const socket = openSocket(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
  } finally {
    socket.destroy();
  }
}

/** rabbitmqctl warns on standard output about any encoding but UTF-8. */
function erlangEnvironment(): Record<string, string> {
  return { ...inheritedEnvironment(/^(RABBITMQ_|ERL_|ELIXIR_|NOTIFY_SOCKET)/), LC_ALL: 'C.UTF-8' };
}
