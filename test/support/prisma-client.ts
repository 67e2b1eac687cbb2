import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Beside the other things that only this checkout has. */
const CLIENTS = join(ROOT, '.local', 'prisma');
const GENERATE_MS_MAX = 60_000;

/**
 * Makes a client of Prisma: in a second and without any network, as it only reads the schema.
 *
 * @param provider as in a schema: `mysql`, `postgresql`
 * @param models of the schema
 * @returns the path of the client's entry
 */
export async function prismaClientFor(provider: string, models: string): Promise<string> {
  const name = createHash('sha256').update(models).digest('hex').slice(0, 8);
  const folder = join(CLIENTS, `${provider}-${name}`);
  const schema = join(folder, 'schema.prisma');
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    schema,
    `generator client {
  provider = "prisma-client-js"
  output   = "./client"
}

datasource db {
  provider = "${provider}"
}

${models}`,
  );
  await promisify(execFile)(
    process.execPath,
    [join(ROOT, 'node_modules', 'prisma', 'build', 'index.js'), 'generate', '--schema', schema],
    {
      cwd: folder,
      timeout: GENERATE_MS_MAX,
      // The engine that changes schemas would be fetched otherwise; nothing here needs it.
      env: {
        ...process.env,
        PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true',
        PRISMA_HIDE_UPDATE_MESSAGE: '1',
      },
    },
  );
  const client = join(folder, 'client', 'index.js');
  if (!existsSync(client)) throw new Error(`prisma generate made no ${client}`);
  return client;
}
