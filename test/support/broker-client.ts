import type { ProducerGroupAnswer, TransactionView } from '@escrowmq/protocol';
import { Agent, request } from 'undici';

/** An answer as it came over the wire, so that tests see what a user with curl sees. */
export interface HttpAnswer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  // Tests look into whatever came.
  // biome-ignore lint/suspicious/noExplicitAny: the shape is what is being tested
  body: any;
}

const agent = new Agent({ connections: 256, keepAliveTimeout: 100 });

/** One call to the broker; rejects only when no answer came. */
export async function call(
  url: string,
  method: 'GET' | 'POST' | 'PUT' | 'DELETE' = 'GET',
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<HttpAnswer> {
  const answer = await request(url, {
    method,
    dispatcher: agent,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined
      ? {}
      : { body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body) }),
  });
  const text = await answer.body.text();
  const isJson = String(answer.headers['content-type']).includes('json');
  return {
    status: answer.statusCode,
    headers: answer.headers,
    body: isJson ? JSON.parse(text) : text,
  };
}

export const registerGroup = async (
  broker: string,
  group: string,
  checkUrls: string[] = [],
  checkPolicy: Record<string, number> = {},
): Promise<ProducerGroupAnswer> =>
  (await call(`${broker}/v1/producer-groups/${group}`, 'PUT', { checkUrls, checkPolicy })).body;

export const view = async (broker: string, id: string): Promise<TransactionView> =>
  (await call(`${broker}/v1/transactions/${id}`)).body;
