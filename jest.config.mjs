import { BETTER_SQLITE3 } from './scripts/better-sqlite3.mjs';

/*
 * Three projects, told apart by folder:
 *
 *   unit     test/*.test.ts, test/unit            no I/O, no server is started
 *   servers  test/contract, test/system           one RabbitMQ and one MySQL for the whole run
 *   long     test/faults, test/long               the same, and servers of their own to crash
 *
 * Jest runs a project's globalSetup only when one of its tests is selected, so `npm test test/unit`
 * starts nothing, and only once for a run, however many files and workers there are.
 */

/** ESM, straight from the sources: a stack trace names the line you wrote. */
const shared = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'es6' } },
    ],
  },
  moduleNameMapper: {
    // For Knex, TypeORM and the rest as well, which import it by this name.
    '^better-sqlite3$': BETTER_SQLITE3,
    '^@escrowmq/protocol$': '<rootDir>/protocol/src/index.ts',
    '^@escrowmq/database$': '<rootDir>/database/src/index.ts',
    '^@escrowmq/database/(.*)$': '<rootDir>/database/src/adapters/$1.ts',
    '^@escrowmq/producer$': '<rootDir>/producer-sdk/src/index.ts',
    '^@escrowmq/(producer|consumer)/opentelemetry$': '<rootDir>/$1-sdk/src/open-telemetry.ts',
    '^@escrowmq/producer/testing$': '<rootDir>/producer-sdk/src/fault-kit/fault-kit.ts',
    '^@escrowmq/consumer$': '<rootDir>/consumer-sdk/src/index.ts',
    '^@escrowmq/local-servers$': '<rootDir>/local-servers/src/index.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  modulePathIgnorePatterns: ['<rootDir>/.*/dist/'],
};

const withServers = {
  // JavaScript on purpose: jest loads these two without its transform. They need the build.
  globalSetup: '<rootDir>/test/support/start-servers.mjs',
  globalTeardown: '<rootDir>/test/support/stop-servers.mjs',
  setupFilesAfterEnv: ['<rootDir>/test/support/server-timeout.ts'],
};

export default {
  // As many as the smallest machine has cores: long tests keep them busy. `npm test` takes one more.
  maxWorkers: 2,
  // Jest warns of a leak where a worker is not gone half a second after it was told to end. Ones that
  // had nothing open, and a heap of 200 to 700 MB, took longer on a machine that others use as well.
  // What a test leaves open is told all the same: its worker does not end at all.
  workerGracefulExitTimeout: 10_000,
  projects: [
    {
      ...shared,
      displayName: 'unit',
      setupFilesAfterEnv: ['<rootDir>/test/support/unit-timeout.ts'],
      testMatch: ['<rootDir>/test/*.test.ts', '<rootDir>/test/unit/**/*.test.ts'],
    },
    {
      ...shared,
      ...withServers,
      displayName: 'servers',
      testMatch: ['<rootDir>/test/{contract,system}/**/*.test.ts'],
    },
    {
      ...shared,
      ...withServers,
      displayName: 'long',
      testMatch: ['<rootDir>/test/{faults,long}/**/*.test.ts'],
    },
  ],
};
