import { ConsumerReceipt, LIMITS, ReceiptBatch } from '@escrowmq/protocol';
import { z } from 'zod';

/** What one message on the queue of receipts says. */
export interface ReadReceipts {
  receipts: ConsumerReceipt[];
  /** What is wrong with the message, or with some of its receipts; the others count all the same. */
  problems: string[];
}

/** The same envelope, whatever stands in it. */
const Envelope = z.object({
  receipts: z.array(z.unknown()).min(1).max(LIMITS.receiptsPerMessageMax),
});

/**
 * Each receipt is judged alone: one that can not be read, such as one of a kind that only a newer
 * consumer knows, must not spoil its neighbours. Never shows the content: it may hold anything.
 */
export function readReceipts(content: Buffer): ReadReceipts {
  let json: unknown;
  try {
    json = JSON.parse(content.toString('utf8'));
  } catch {
    // The parser's own message quotes what it read.
    return { receipts: [], problems: ['it is not JSON'] };
  }
  const whole = ReceiptBatch.safeParse(json);
  if (whole.success) return { receipts: whole.data.receipts, problems: [] };
  const envelope = Envelope.safeParse(json);
  if (!envelope.success) {
    return {
      receipts: [],
      problems: [`it is no batch of receipts: ${firstIssue(envelope.error)}`],
    };
  }
  const read: ReadReceipts = { receipts: [], problems: [] };
  envelope.data.receipts.forEach((value, index) => {
    const one = ConsumerReceipt.safeParse(value);
    if (one.success) read.receipts.push(one.data);
    else read.problems.push(`receipt ${index} can not be read: ${firstIssue(one.error)}`);
  });
  return read;
}

function firstIssue({ issues: [issue] }: z.ZodError): string {
  return `${issue?.path.join('.')}: ${issue?.code}`;
}
