import { type Consumer, createConsumer, type Message, type Subscription } from '@escrowmq/consumer';
import { openTelemetry as consumerTelemetry } from '@escrowmq/consumer/opentelemetry';
import { createProducer, isEscrowError, type Producer } from '@escrowmq/producer';
import { openTelemetry } from '@escrowmq/producer/opentelemetry';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { context, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { type CheckEndpoint, decide, startCheckEndpoint } from '../support/check-endpoint.js';
import { deleteGroupQueues } from '../support/group-queues.js';
import { SQLITE } from '../support/producer-databases.js';
import { startOutboxDatabase } from '../support/producer-outbox.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * From a request of a service to the handler of another one, through the real broker and RabbitMQ,
 * with the real SDK of OpenTelemetry.
 */

const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const tracer = provider.getTracer('test');
const group = uniqueName('accounts');
const index = uniqueName('index');
const topic = uniqueName('user');
const otherTopic = uniqueName('order');
const message = { topic, routingKey: 'registered', data: { userId: 7 } };

let store: Awaited<ReturnType<typeof freshStore>>;
let broker: BrokerProcess;
let endpoint: CheckEndpoint;
let database: Awaited<ReturnType<typeof startOutboxDatabase>>;
let producer: Producer;
let consumer: Consumer;
let subscription: Subscription;
/** What the handler does beyond taking note. */
let handle: (message: Message) => unknown = () => undefined;

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(provider);
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  endpoint = await startCheckEndpoint();
  database = await startOutboxDatabase(SQLITE);
  await registerGroup(broker.url, group, [endpoint.url], { firstDelayMs: 60_000 });
  producer = createProducer({
    brokers: [broker.url],
    producerGroup: group,
    tracing: openTelemetry(),
  });
  consumer = createConsumer({ rabbitmq: rabbitmqUrl(), tracing: consumerTelemetry() });
  subscription = await consumer.subscribe({ topic, group: index, retryDelaysMs: [1] }, (given) =>
    handle(given),
  );
});
afterAll(async () => {
  await subscription.close();
  await consumer.close();
  await producer.close();
  for (const each of [topic, otherTopic]) {
    await deleteGroupQueues(rabbitmqUrl(), each, [{ group: index, retryDelaysMs: [1] }]);
  }
  await database.close();
  await endpoint.close();
  await broker.stop();
  await store.remove();
  await provider.shutdown();
  context.disable();
  trace.disable();
});
afterEach(() => {
  exporter.reset();
  handle = () => undefined;
});

/** Like a service that answers a request: in a span of its own. */
const request = <T>(work: (span: Span) => Promise<T>): Promise<T> =>
  tracer.startActiveSpan('request', async (span) => {
    try {
      return await work(span);
    } finally {
      span.end();
    }
  });

const spans = (name: string) => exporter.getFinishedSpans().filter((span) => span.name === name);
async function spanNamed(name: string): Promise<ReadableSpan> {
  await until(`a span ${name} has ended`, () => spans(name).length > 0);
  return spans(name)[0] as ReadableSpan;
}

describe('one trace leads', () => {
  test('from a request by its prepare to the handler and to what the handler calls', async () => {
    handle = async () => {
      await Promise.resolve();
      tracer.startSpan('insert').end();
    };
    const { id } = await request(async () => {
      const prepared = await producer.prepare({ messages: [message] });
      return producer.commit(prepared.id);
    });

    const [requested, prepared, handled, inserted] = await Promise.all(
      ['request', 'escrow prepare', 'escrow process', 'insert'].map(spanNamed),
    );
    expect(prepared).toMatchObject({
      kind: SpanKind.PRODUCER,
      parentSpanContext: { spanId: requested?.spanContext().spanId },
      attributes: {
        'messaging.system': 'rabbitmq',
        'messaging.operation.name': 'prepare',
        'messaging.operation.type': 'create',
        'messaging.destination.name': topic,
        'messaging.rabbitmq.destination.routing_key': 'registered',
        'messaging.message.id': `${id}-0`,
        'escrow.transaction.id': id,
        'escrow.producer_group': group,
      },
    });
    expect(handled).toMatchObject({
      kind: SpanKind.CONSUMER,
      parentSpanContext: { spanId: prepared?.spanContext().spanId, isRemote: true },
      links: [{ context: { spanId: prepared?.spanContext().spanId } }],
      attributes: {
        'messaging.operation.name': 'process',
        'messaging.destination.name': topic,
        'messaging.message.id': `${id}-0`,
        'messaging.message.body.size': 12,
        'escrow.attempts': 0,
      },
    });
    expect(inserted?.parentSpanContext?.spanId).toBe(handled?.spanContext().spanId);
    expect(inserted?.spanContext().traceId).toBe(requested?.spanContext().traceId);
    expect(await spanNamed('escrow commit')).toMatchObject({
      kind: SpanKind.CLIENT,
      parentSpanContext: { spanId: requested?.spanContext().spanId },
      attributes: { 'messaging.operation.name': 'commit', 'escrow.transaction.id': id },
    });
  });

  test.each([
    ['a local transaction', 1, {}, 'escrow commit'],
    ['a local transaction in outbox mode', 2, { outbox: true }, 'escrow prepare'],
  ])('from %s', async (_, id, options, alsoEnds) => {
    const own = createProducer({
      brokers: [broker.url],
      producerGroup: group,
      tracing: openTelemetry(),
      ...options,
    });
    try {
      await request(() =>
        own.transaction(database.connect().database, message, (tx) =>
          database.send(tx, `insert into account (id) values (${id})`),
        ),
      );
      const handled = await spanNamed('escrow process');
      const prepared = await spanNamed('escrow prepare');
      expect(handled.parentSpanContext?.spanId).toBe(prepared.spanContext().spanId);
      const requested = await spanNamed('request');
      for (const name of ['escrow prepare', alsoEnds]) {
        expect((await spanNamed(name)).parentSpanContext?.spanId).toBe(
          requested.spanContext().spanId,
        );
      }
    } finally {
      await own.close();
    }
  });

  test('from a send of several messages, which are one batch', async () => {
    await request(() => producer.send({ messages: [message, message] }));
    await until('both are handled', () => spans('escrow process').length === 2);
    const sent = await spanNamed('escrow send');
    expect(sent.kind).toBe(SpanKind.PRODUCER);
    expect(sent.attributes).toMatchObject({ 'messaging.batch.message_count': 2 });
    for (const handled of spans('escrow process')) {
      expect(handled.parentSpanContext?.spanId).toBe(sent.spanContext().spanId);
    }
  });

  test('to every attempt of a handler, and shows which failed', async () => {
    handle = ({ attempts }) => {
      if (attempts === 0) throw new RangeError('no such account');
    };
    await request(() => producer.send({ messages: [message] }));
    await until('it is handled twice', () => spans('escrow process').length === 2);
    const [failed, succeeded] = spans('escrow process');
    const sent = await spanNamed('escrow send');
    expect(failed).toMatchObject({
      status: { code: SpanStatusCode.ERROR, message: 'no such account' },
      attributes: { 'error.type': 'RangeError', 'escrow.attempts': 0 },
      events: [{ name: 'exception' }],
    });
    expect(succeeded).toMatchObject({
      status: { code: SpanStatusCode.UNSET },
      attributes: { 'escrow.attempts': 1 },
      parentSpanContext: { spanId: sent.spanContext().spanId },
    });
  });

  test('to a batch as links, because a batch has many', async () => {
    const batched = uniqueName('batched');
    const retryDelaysMs = [1];
    const options = {
      topic: batched,
      group: index,
      retryDelaysMs,
      batchMax: 2,
      batchWaitMs: 5_000,
    };
    const batches = await consumer.subscribeBatch(options, () => undefined);
    try {
      const both = [message, message].map((each) => ({ ...each, topic: batched }));
      await request(() => producer.send({ messages: both }));
      const handled = await spanNamed('escrow process');
      const { spanId } = (await spanNamed('escrow send')).spanContext();
      expect(handled.parentSpanContext).toBeUndefined();
      expect(handled.attributes).toMatchObject({ 'messaging.batch.message_count': 2 });
      expect(handled.links.map(({ context }) => context.spanId)).toEqual([spanId, spanId]);
    } finally {
      await batches.close();
      await deleteGroupQueues(rabbitmqUrl(), batched, [{ group: index, retryDelaysMs }]);
    }
  });

  test('to the check of a transaction without a verdict', async () => {
    let asked: unknown;
    endpoint.answer = (check, response, { headers }) => {
      asked = headers.traceparent;
      decide('rollback')(check, response);
    };
    const { id } = await request(() => producer.prepare({ messages: [message], checkAfterMs: 0 }));
    await until('it is checked', async () => (await view(broker.url, id)).state === 'rolledBack');
    const { traceId, spanId } = (await spanNamed('escrow prepare')).spanContext();
    expect(asked).toBe(`00-${traceId}-${spanId}-01`);
  });
});

test('a trace given to a call goes before that of the span', async () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  await producer.send({ messages: [message], trace: { traceparent, tracestate: 'vendor=1' } });
  const handled = await spanNamed('escrow process');
  expect(handled.spanContext().traceId).toBe('0af7651916cd43dd8448eb211c80319c');
  expect(handled.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
  expect(handled.spanContext().traceState?.serialize()).toBe('vendor=1');
});

test('a message without a trace begins one at its handler', async () => {
  const plain = createProducer({ brokers: [broker.url], producerGroup: group });
  try {
    await plain.send({ messages: [message] });
    const handled = await spanNamed('escrow process');
    expect(handled.parentSpanContext).toBeUndefined();
    expect(handled.links).toEqual([]);
  } finally {
    await plain.close();
  }
});

test('what the broker refuses is a failed span with the code of the refusal', async () => {
  const unknown = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
  const refused = await request(() => producer.rollback(unknown)).catch((error: unknown) => error);
  expect(isEscrowError(refused) && refused.code).toBe('TRANSACTION_NOT_FOUND');
  expect(await spanNamed('escrow rollback')).toMatchObject({
    status: { code: SpanStatusCode.ERROR },
    attributes: { 'error.type': 'TRANSACTION_NOT_FOUND', 'escrow.transaction.id': unknown },
  });
});

test('a tracer of any other kind is one function on each side', async () => {
  const told: string[] = [];
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00';
  const other = createProducer({
    brokers: [broker.url],
    producerGroup: group,
    tracing: {
      span(operation, work) {
        told.push(`${operation.op} ${operation.messages.length}`);
        return work({ traceparent });
      },
    },
  });
  const otherConsumer = createConsumer({
    rabbitmq: rabbitmqUrl(),
    tracing: {
      span(messages, call) {
        told.push(`handle ${String(messages[0]?.headers.traceparent)}`);
        return call();
      },
    },
  });
  try {
    let handled = 0;
    await otherConsumer.subscribe({ topic: otherTopic, group: index, retryDelaysMs: [1] }, () => {
      handled += 1;
    });
    await other.send({ messages: [{ topic: otherTopic, data: 1 }] });
    await until('it is handled', () => handled === 1);
    expect(told).toEqual(['send 1', `handle ${traceparent}`]);
  } finally {
    await otherConsumer.close();
    await other.close();
  }
});
