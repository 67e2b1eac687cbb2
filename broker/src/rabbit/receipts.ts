import { type ConsumerReceipt, createCoalescer, RECEIPTS_QUEUE, ReceiptBatch } from '@escrowmq/protocol';
import { isEscrowError } from '@escrowmq/protocol';
