import { Message } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { outgoingOf } from '../../broker/src/domain/outgoing.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const PREPARED_AT = Date.UTC(2026, 10, 21, 12, 30, 0, 7);

/** As RabbitMQ gets the second message of a transaction of the group `accounts`. */
function outgoing(input: object) {
  const message = Message.parse({ topic: 'user', data: {}, ...input });
  const transaction = {
    id: ID,
    producerGroup: 'accounts',
    expects: [],
    trace: {},
    preparedAt: PREPARED_AT,
    messages: [message, message],
  };
  return outgoingOf({ transaction, number: 1, message, receiptsQueue: 'receipts' });
}

function cloudEventsOf(input: object) {
  const headers = Object.entries(outgoing(input).headers);
  return Object.fromEntries(headers.filter(([name]) => /^cloudevents/i.test(name)));
}

const problemsOf = (input: object) =>
  Message.safeParse({ topic: 'user', data: {}, ...input }).error?.issues ?? [];

describe('CloudEvents attributes', () => {
  test('are left out unless they are asked for', () => {
    expect(cloudEventsOf({})).toEqual({});
  });

  test('follow from the message itself where nothing else is said', () => {
    expect(cloudEventsOf({ routingKey: 'registered', cloudEvents: {} })).toEqual({
      'cloudEvents:specversion': '1.0',
      'cloudEvents:id': `${ID}-1`,
      'cloudEvents:source': '/producer-groups/accounts',
      'cloudEvents:type': 'registered',
      'cloudEvents:time': '2026-11-21T12:30:00.007Z',
    });
  });

  test('have the topic as their type where the routing key is empty', () => {
    expect(cloudEventsOf({ cloudEvents: {} })).toHaveProperty(['cloudEvents:type'], 'user');
  });

  test('are what the caller says', () => {
    const cloudEvents = {
      source: 'https://example.com/accounts',
      type: 'com.example.user.registered',
      subject: 'users/7',
      dataschema: 'https://example.com/schemas/user.json',
    };
    expect(cloudEventsOf({ cloudEvents })).toEqual({
      'cloudEvents:specversion': '1.0',
      'cloudEvents:id': `${ID}-1`,
      'cloudEvents:source': cloudEvents.source,
      'cloudEvents:type': cloudEvents.type,
      'cloudEvents:time': '2026-11-21T12:30:00.007Z',
      'cloudEvents:subject': cloudEvents.subject,
      'cloudEvents:dataschema': cloudEvents.dataschema,
    });
  });

  test('leave the content type and the own headers of the message as they are', () => {
    const message = outgoing({
      data: undefined,
      dataBase64: 'AA==',
      contentType: 'application/protobuf',
      headers: { tenant: 'a' },
      cloudEvents: {},
    });
    expect(message.contentType).toBe('application/protobuf');
    expect(message.headers).toMatchObject({ tenant: 'a' });
    expect(message.headers).not.toHaveProperty(['cloudEvents:datacontenttype']);
  });
});

describe('a message with cloudEvents', () => {
  test.each(['cloudEvents:type', 'cloudEvents_type', 'CLOUDEVENTS:id'])(
    'is refused with a header %s of its own',
    (header) => {
      const [problem] = problemsOf({ headers: { [header]: 'mine' }, cloudEvents: {} });
      expect(problem).toMatchObject({ path: ['headers'], params: { code: 'FORBIDDEN_HEADER' } });
      expect(problem?.message).toContain(header);
    },
  );

  test('may be written by the caller alone, header by header', () => {
    expect(problemsOf({ headers: { 'cloudEvents:type': 'mine' } })).toEqual([]);
  });

  test.each([
    ['source', ''],
    ['source', 'with space'],
    ['source', '100%'],
    ['dataschema', '/relative'],
    ['type', ''],
    ['subject', 'line\nbreak'],
    ['id', 'mine'],
    ['time', '2026-11-21T00:00:00Z'],
  ])('is refused with the %s %j', (attribute, value) => {
    const [problem] = problemsOf({ cloudEvents: { [attribute]: value } });
    expect(problem?.path[0]).toBe('cloudEvents');
  });
});
