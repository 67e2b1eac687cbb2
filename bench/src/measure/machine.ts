import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { arch, cpus, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { connect } from 'amqplib';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import type { Servers } from '../servers.js';
import { quantiles } from './quantiles.js';

/** Where and on what the figures were measured: without it they mean nothing. */
export interface Machine {
  /** ISO 8601, UTC. */
  date: string;
  cpu: string;
  cores: number;
  memoryGiB: number;
  system: string;
  node: string;
  rabbitmq: string;
  mariadb: string;
  /** Of the server's variables that decide about durability and speed. */
  mariadbSettings: Record<string, string>;
  /** One small write made durable, p50, in the folder of the servers. */
  syncMs: number;
}

/** In one line, for the subtitle of a plot. */
export function machineInShort({ cores, cpu, rabbitmq, mariadb, date }: Machine): string {
  const [rabbitmqVersion] = rabbitmq.split(' ');
  const [mariadbVersion] = mariadb.split('-');
  return `${cores} × ${cpu}, RabbitMQ ${rabbitmqVersion}, MariaDB ${mariadbVersion}, ${date.slice(0, 10)}`;
}

const MARIADB_VARIABLES = [
  'innodb_flush_log_at_trx_commit',
  'sync_binlog',
  'log_bin',
  'binlog_format',
  'innodb_buffer_pool_size',
  'innodb_log_file_size',
];

export async function describeMachine({ rabbitmq, mariadb }: Servers): Promise<Machine> {
  const { version, settings } = await describeMariadb(mariadb.url);
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()} ${arch()}`,
    node: process.version,
    rabbitmq: await describeRabbitmq(rabbitmq.url),
    mariadb: version,
    mariadbSettings: settings,
    syncMs: measureSync(rabbitmq.server.dir),
  };
}

/** `3.10.8 (Erlang/OTP 25.2.3)` */
async function describeRabbitmq(url: string): Promise<string> {
  const connection = await connect(url);
  const { version, platform } = connection.connection.serverProperties;
  await connection.close();
  return `${version} (${platform})`;
}

async function describeMariadb(
  url: string,
): Promise<{ version: string; settings: Record<string, string> }> {
  const connection = await createConnection(url);
  const [versions] = await connection.query<RowDataPacket[]>('select version() as version');
  const [variables] = await connection.query<RowDataPacket[]>(
    'show variables where variable_name in (?)',
    [MARIADB_VARIABLES],
  );
  await connection.end();
  return {
    version: String(versions[0]?.version),
    settings: Object.fromEntries(variables.map((row) => [row.Variable_name, String(row.Value)])),
  };
}

/** As a log does it: appended, then synced. */
function measureSync(folder: string): number {
  const times = 200;
  const path = join(folder, 'sync');
  const file = openSync(path, 'w');
  const block = Buffer.alloc(512);
  const tookMs = Array.from({ length: times }, () => {
    const from = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    return performance.now() - from;
  });
  closeSync(file);
  rmSync(path);
  return quantiles(tookMs).p50;
}
