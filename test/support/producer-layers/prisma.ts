import { fromPrisma, type PrismaDatabase, type PrismaTransaction } from '@escrowmq/producer/prisma';
import { PrismaMariaDb } from '@prisma/adapter-mariadb';
import { PrismaPg } from '@prisma/adapter-pg';
import { prismaClientFor } from '../prisma-client.js';
import type { EngineName } from './engine.js';
import type { Layer } from './layer.js';

/** The part of the generated client that the suite uses; the client itself is made as tests start. */
interface Tx extends PrismaTransaction {
  account: { create(row: { data: { id: number } }): Promise<unknown> };
}

interface Client extends PrismaDatabase<Tx> {
  account: Tx['account'];
  $disconnect(): Promise<void>;
}

const PROVIDERS = { MariaDB: 'mysql', PostgreSQL: 'postgresql' } as const;

const MODELS = `model Account {
  id    Int     @id
  phone String? @db.VarChar(20)

  @@map("account")
}
`;

const ADAPTERS = {
  // MySQL refuses savepoints in its binary protocol, which is the adapter's default.
  MariaDB: (url: string) => new PrismaMariaDb(url, { useTextProtocol: true }),
  PostgreSQL: (url: string) => new PrismaPg({ connectionString: url }),
};

async function openClient(engine: EngineName, url: string): Promise<Client> {
  if (engine === 'SQLite') throw new Error('fromPrisma does not take SQLite');
  const made = await import(await prismaClientFor(PROVIDERS[engine], MODELS));
  const { PrismaClient } = made.default ?? made;
  return new PrismaClient({ adapter: ADAPTERS[engine](url) });
}

export const prismaLayer: Layer<Tx> = {
  name: 'Prisma',
  engines: ['MariaDB', 'PostgreSQL'],
  async open(engine, url) {
    const prisma = await openClient(engine, url);
    return {
      database: fromPrisma<Tx>(prisma),
      enlistable: (tx) => fromPrisma(tx),
      begin: (work) => prisma.$transaction(work),
      insert: (tx, id) => tx.account.create({ data: { id } }),
      run: async (tx, sql) => tx.$executeRawUnsafe(sql),
      refused: [
        { what: 'an object', make: () => fromPrisma({} as unknown as PrismaTransaction) },
        { what: 'nothing', make: () => fromPrisma(undefined as unknown as PrismaTransaction) },
      ],
      close: () => prisma.$disconnect(),
    };
  },
};
