import { fromPrisma, type PrismaDatabase, type PrismaTransaction } from '@escrowmq/database/prisma';
import { PrismaMariaDb } from '@prisma/adapter-mariadb';
import { PrismaPg } from '@prisma/adapter-pg';
import { prismaClientFor } from '../prisma-client.js';
import type { EngineName } from './engine.js';
import type { Layer, OpenLayer } from './layer.js';

/** The part of the generated client that the suite uses; the client itself is made as tests start. */
export interface PrismaTx extends PrismaTransaction {
  account: { create(row: { data: { id: number } }): Promise<unknown> };
  $transaction(work: (inner: PrismaTx) => Promise<void>): Promise<void>;
}

interface Client extends PrismaDatabase<PrismaTx> {
  $disconnect(): Promise<void>;
  $extends(extension: {
    query: {
      $allOperations(call: {
        args: unknown;
        query(args: unknown): Promise<unknown>;
      }): Promise<unknown>;
    };
  }): PrismaDatabase<PrismaTx>;
}

const PROVIDERS = { MariaDB: 'mysql', PostgreSQL: 'postgresql' } as const;

const MODELS = `model Account {
  id    Int     @id
  phone String? @db.VarChar(20)

  @@map("account")
}
`;

export async function openPrisma(
  engine: EngineName,
  adapter: PrismaMariaDb | PrismaPg,
): Promise<Client> {
  if (engine === 'SQLite') throw new Error('fromPrisma does not take SQLite');
  const made = await import(await prismaClientFor(PROVIDERS[engine], MODELS));
  const { PrismaClient } = made.default ?? made;
  return new PrismaClient({ adapter });
}

function openLayer(prisma: Client): OpenLayer<PrismaTx> {
  return {
    database: fromPrisma<PrismaTx>(prisma),
    enlistable: (tx) => fromPrisma(tx),
    begin: (work) => prisma.$transaction(work),
    nest: (tx, work) => tx.$transaction(work),
    insert: (tx, id) => tx.account.create({ data: { id } }),
    run: async (tx, sql) => tx.$executeRawUnsafe(sql),
    refused: [
      { what: 'an object', make: () => fromPrisma({} as unknown as PrismaTransaction) },
      { what: 'nothing', make: () => fromPrisma(undefined as unknown as PrismaTransaction) },
    ],
    close: () => prisma.$disconnect(),
  };
}

export const prismaLayer: Layer<PrismaTx> = {
  name: 'Prisma',
  engines: ['MariaDB', 'PostgreSQL'],
  async open(engine, url) {
    const adapter =
      engine === 'MariaDB' ? new PrismaMariaDb(url) : new PrismaPg({ connectionString: url });
    return openLayer(await openPrisma(engine, adapter));
  },
};

/** What MySQL needs, which refuses savepoints in the binary protocol. */
export const prismaTextLayer: Layer<PrismaTx> = {
  name: 'Prisma with the text protocol',
  engines: ['MariaDB'],
  async open(engine, url) {
    return openLayer(await openPrisma(engine, new PrismaMariaDb(url, { useTextProtocol: true })));
  },
};
