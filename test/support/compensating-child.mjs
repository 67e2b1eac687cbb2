/*
 * A producer that compensates, as a process of its own, on the built code, to be killed. JavaScript
 * on purpose, as it runs without jest's transform.
 *
 *   compensating-child.mjs <database url> <port> <signing secret> <when>
 *
 *   when   inside: kills itself in its first callback, after what that wrote
 *          answering: kills itself when its first compensation is committed, instead of answering
 *          never
 *
 * Says `listening`.
 */
import http from 'node:http';
import { createPool } from 'mysql2/promise';
import {
  createCompensationHandler,
  nodeCompensationListener,
} from '../../producer-sdk/dist/index.js';

const [url, port, signingSecret, when] = process.argv.slice(2);

const die = () => process.kill(process.pid, 'SIGKILL');

const compensation = createCompensationHandler({
  signingSecret,
  database: createPool(url),
  async compensate(tx, { message }) {
    await tx.query('insert into refund (message) values (?)', [message]);
    if (when === 'inside') die();
  },
});
const listener = nodeCompensationListener(async (...call) => {
  const answer = await compensation(...call);
  if (when === 'answering' && answer.status === 200) die();
  return answer;
});
http.createServer(listener).listen(Number(port), '127.0.0.1', () => {
  process.stdout.write('listening\n');
});
