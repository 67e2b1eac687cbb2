import { jest } from '@jest/globals';

/**
 * For every test without servers. None takes a second on a quiet machine, but on two cores that
 * others use as well some have taken more than the 5 s that jest allows by itself.
 */
const UNIT_TEST_TIMEOUT_MS = 30_000;

jest.setTimeout(UNIT_TEST_TIMEOUT_MS);
