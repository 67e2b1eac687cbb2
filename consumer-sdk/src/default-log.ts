import { createStderrLog, type StderrLine, tellForeign } from '@escrowmq/database';
import type { ConsumerEvent, Instance, Log } from './events.js';

const WHO = 'escrowmq consumer';

type Name = ConsumerEvent['event'];
type Said = Pick<StderrLine, 'level' | 'text'>;

const warn = (text: string): Said => ({ level: 'warn', text });
const error = (text: string): Said => ({ level: 'error', text });

/**
 * Which events are said without a logger: what somebody may have to act on. `undefined` for what goes
 * as it should; a new event needs its line here.
 */
const SAID: Record<Name, Said | undefined> = {
  connected: undefined,
  connectionLost: warn('there is no connection to RabbitMQ; it is tried again'),
  blocked: warn('RabbitMQ is short of memory or disk and takes nothing; retries and receipts wait'),
  unblocked: undefined,
  consuming: undefined,
  consumingLost: warn('a queue is not consumed any more; it is tried again'),
  paused: undefined,
  resumed: undefined,
  publishingLost: warn('the channel for retries and dead letters is lost; it is tried again'),
  retryScheduled: warn('a handler failed; its message comes again'),
  postponed: undefined,
  deadLettered: error('a message was given up: it is in the dead-letter queue of its group'),
  settlingFailed: error('a message could not be put aside; it goes back into its queue'),
  gap: undefined,
  gapFailed: error('onGap failed; it is called again'),
  messageDropped: error('the handler of an ephemeral subscription failed; its message is gone'),
  deliveryLost: warn('a channel was lost before a message was acknowledged; it comes again'),
  receiptsLost: warn('receipts did not reach RabbitMQ; only what the broker displays is behind'),
  drainTimedOut: warn('handlers still ran when close stopped waiting; their messages come again'),
  lateWork: error(
    'work on a message was begun when its handler had ended and it was acknowledged: await it',
  ),
  unusedTransaction: warn(
    'work sent nothing through its tx: on another connection it is not in the transaction',
  ),
  callbackFailed: error('a callback of yours threw; nothing else came of it'),
  messageUnasked: warn('a message came whose key was not asked for; its handler gets it'),
  groupDisagrees: warn('another instance of the group subscribes differently'),
  groupAgrees: undefined,
  announcementsRefused: warn(
    'no right to announce; instances of a group do not hear of each other',
  ),
  announcementIgnored: warn('an announcement of another instance can not be read'),
  housekeepingOn: warn(
    'old rows are deleted from now on; ensureConsumedTable(database, { housekeeping: false }) turns that off',
  ),
  housekeepingFailed: warn('old rows could not be deleted; it is tried again'),
};

/**
 * Tells the user's logger, outside our own flow. One that throws, or whose promise rejects, changes
 * nothing and ends nothing: that it failed is said on stderr once, and each event that it did not take
 * goes there as if there were no logger.
 */
export function logTo(logger: Log | undefined): Log {
  const say = createDefaultLog();
  if (logger === undefined) return say;
  let hasSaidSo = false;
  const failed = (event: ConsumerEvent, thrown: unknown) => {
    if (!hasSaidSo) sayLoggerFailed(event, thrown);
    hasSaidSo = true;
    say(event);
  };
  return (event) =>
    queueMicrotask(() =>
      tellForeign(
        () => logger(event),
        (thrown) => failed(event, thrown),
      ),
    );
}

function sayLoggerFailed({ event }: ConsumerEvent, thrown: unknown): void {
  const text = `the logger failed at the event ${event}; what it does not take goes here`;
  createStderrLog(WHO)({ level: 'error', kind: 'logger', text, thrown: { error: thrown } });
}

/** Says on stderr what is no good news, with the stack of its error. */
function createDefaultLog(): Log {
  const say = createStderrLog(WHO);
  return (event) => {
    const said = SAID[event.event];
    if (said === undefined) return;
    const { cause, error: thrown, ...fields } = { cause: undefined, error: undefined, ...event };
    const about = 'error' in event ? { thrown: { error: thrown } } : {};
    const why = 'error' in event ? {} : { cause };
    const sides = 'me' in event ? { me: nameOf(event.me), other: nameOf(event.other) } : {};
    say({ ...said, kind: kindOf(event), fields: { ...fields, ...sides, ...why }, ...about });
  };
}

const nameOf = ({ host, instance, version }: Instance) => `${host} (${instance}, ${version})`;

function kindOf(event: ConsumerEvent): string {
  const topic = 'topic' in event ? event.topic : '';
  const group = 'group' in event ? event.group : '';
  const table = 'table' in event ? event.table : '';
  const between = 'about' in event ? `${event.about} ${event.other.instance}` : '';
  return `${event.event} ${topic} ${group} ${table} ${between}`;
}
