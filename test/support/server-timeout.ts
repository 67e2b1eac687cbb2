import { jest } from '@jest/globals';

/**
 * For every test that has real servers (jest takes this from a project only through a setup file).
 * One start of RabbitMQ takes 5 to 10 s; a fault test does several, on two busy cores. A test that
 * hangs is found out by this limit, so it is not more generous than that.
 */
const SERVER_TEST_TIMEOUT_MS = 120_000;

jest.setTimeout(SERVER_TEST_TIMEOUT_MS);
