/*
 * Puts failpoints into a process of the built code, without a line of them in the product:
 *
 *   node --import …/failpoints/register.mjs broker/dist/main.js
 *
 * What is to happen, and where, says ESCROW_TEST_FAILPOINT (failpoint.mjs).
 */
import { register } from 'node:module';

register('./hooks.mjs', import.meta.url);
