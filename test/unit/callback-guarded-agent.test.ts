import { createHook } from 'node:async_hooks';
import { expect, test } from '@jest/globals';
import { request } from 'undici';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { createGuardedAgent } from '../../broker/src/callback/guarded-agent.js';
import { until } from '../support/until.js';

const policy = createCallbackPolicy({ allow: '', loopbackAllowed: true });

/** A socket that waits for its connection ends after 5 s by itself. */
const SOON_MS = 4_000;

test.each(['http', 'https'])(
  'a closed agent leaves no socket of %s that waits for its connection (V03)',
  async (scheme) => {
    const opened: number[] = [];
    const gone = new Set<number>();
    const hook = createHook({
      init: (id, type) => type === 'TCPWRAP' && opened.push(id),
      destroy: (id) => gone.add(id),
    });
    let isAsked = false;
    const agent = createGuardedAgent(policy, () => {
      isAsked = true;
    });
    hook.enable();
    try {
      const call = request(`${scheme}://localhost:1/`, { dispatcher: agent.dispatcher });
      call.catch(() => undefined);
      await until('the name is being resolved', () => isAsked);
      expect(opened.filter((id) => !gone.has(id))).toHaveLength(1);
      await agent.close();
      await expect(call).rejects.toThrow('The client is destroyed');
      await until('the socket is gone', () => opened.every((id) => gone.has(id)), SOON_MS);
    } finally {
      hook.disable();
    }
  },
);
