import { randomBytes } from 'node:crypto';
import type { Answer, Forgery } from './asker.js';
import { beforeLocal, type Play } from './scenarios.js';

/*
 * Checks that the broker did not send. They come while the local transaction has not begun, when a
 * check that is believed decides: the attempt must commit all the same.
 */

interface Hostile {
  /** What came, in the words of a finding. */
  what: string;
  /** What of it condemns; a body that is no check may be answered by a status of 200 that decides nothing. */
  condemned: 'any answer' | 'a decision';
  cure: string;
  forgeries(): Forgery[];
}

const VERIFY =
  "Verify the Standard Webhooks signature over the raw body, before anything else, with the group's secret, and answer 401.";

const hostile =
  ({ what, condemned, cure, forgeries }: Hostile): Play =>
  async (trial) => {
    trial.mustCommit(
      `after ${what} the local transaction could not commit any more: the check decided before it knew who asked. ${cure}`,
    );
    const { release } = await beforeLocal(trial);
    try {
      const transaction = await trial.prepared();
      for (const forgery of forgeries()) {
        const answer = await trial.forge(transaction, forgery);
        if (!isBelieved(answer, condemned)) continue;
        trial.condemn(
          `${what} was answered ${said(answer)}: whoever can reach the endpoint can decide your transactions. ${cure}`,
        );
        break;
      }
    } finally {
      release();
      trial.resume('commits');
    }
    return undefined;
  };

function isBelieved(answer: Answer, condemned: Hostile['condemned']): boolean {
  if (answer.decision === 'none') return condemned === 'any answer' && answer.status === 200;
  return condemned === 'any answer' || answer.decision !== 'unknown';
}

const said = (answer: Answer) =>
  answer.decision === 'none' ? `200 with ${answer.why}` : `200 and ${answer.decision}`;

const anotherSecret = () => `whsec_${randomBytes(32).toString('base64')}`;

/** Standard Webhooks takes five minutes; twice that is old for everybody. */
const REPLAY_AGE_MS = 10 * 60_000;

export const HOSTILE_SCENARIOS = {
  'a check signed with another secret': hostile({
    what: 'a check signed with another secret',
    condemned: 'any answer',
    cure: VERIFY,
    forgeries: () => [{ secret: anotherSecret() }],
  }),
  'a check without a signature': hostile({
    what: 'a check without a signature',
    condemned: 'any answer',
    cure: VERIFY,
    forgeries: () => [{ secret: undefined }],
  }),
  'a check that is replayed': hostile({
    what: 'a check that was signed ten minutes ago',
    condemned: 'any answer',
    cure: 'Refuse a webhook-timestamp that is more than five minutes off: what was overheard must not be of use for ever.',
    forgeries: () => [{ signedAt: new Date(Date.now() - REPLAY_AGE_MS) }],
  }),
  'a check for another group': hostile({
    what: 'a check for another producer group',
    condemned: 'a decision',
    cure: 'Compare producerGroup with your own (createCheckHandler: the option producerGroup), and answer 404: that transaction is in another database, and finding nothing here says nothing about it.',
    forgeries: () => [{ producerGroup: 'fault-kit.another-group' }],
  }),
  'a check whose body is garbage': hostile({
    what: 'a body that is no check',
    condemned: 'a decision',
    cure: 'Take a body only where it has every field of a check with its type, and answer 400 otherwise.',
    forgeries: () => [{ body: 'no JSON' }, { body: '{}' }, { body: '{"id":["0"]}' }],
  }),
} satisfies Record<string, Play>;
