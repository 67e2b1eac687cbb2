import { connect } from 'node:net';
import { asAdmin } from './world/databases.js';
import type { World } from './world/world.js';

/** Of what was tried, for whoever wants the same run again. */
export interface Versions {
  node: string;
  database: string;
  rabbitmq: string;
}

const AMQP_HEADER = Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1]);
/** Of `version` among the server's properties: a long string, its length before it. */
const VERSION = /versionS\0{3}.([0-9.]+)/s;

export async function versionsOf({ databases, rabbitmq }: World): Promise<Versions> {
  const database = await asAdmin(databases.store, async (query) => {
    const [row] = (await query('select version() as version')) as { version: string }[];
    return row?.version ?? '';
  });
  return { node: process.version, database, rabbitmq: await rabbitmqVersion(rabbitmq.port) };
}

/** RabbitMQ introduces itself in the first frame, before any login. */
function rabbitmqVersion(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(AMQP_HEADER));
    socket.once('error', reject);
    socket.once('data', (frame) => {
      socket.destroy();
      resolve(VERSION.exec(frame.toString('latin1'))?.[1] ?? 'unknown');
    });
  });
}
