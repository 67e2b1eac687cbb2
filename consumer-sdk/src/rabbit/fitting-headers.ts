import { HEADERS } from '@escrowmq/protocol';

/*
 * A message's headers travel in one frame, and a copy has more of them than the original: one that
 * fitted may not fit any more. The client library throws beyond 64 KiB, and RabbitMQ closes the
 * connection beyond its `frame_max`. Such a copy could never be sent, and its message never put away,
 * so it goes without its largest headers, and says which.
 */

/** The client library's buffer, less what stands beside the headers. */
const TABLE_BYTES_MAX = 60 * 1024;
/** Other properties, at most eight short strings, and what a frame needs for itself. */
const BESIDE_BYTES = 2_304;
/** A tag and a length for the name, and for the value. */
const HEADER_FIXED_BYTES = 10;
const NAMES_CHARS_MAX = 500;

/** @param frameMax bytes, as agreed with RabbitMQ @returns the headers, or as many as fit */
export function fittingHeaders(
  headers: Readonly<Record<string, unknown>>,
  frameMax: number,
): Record<string, unknown> {
  const bytesMax = Math.min(TABLE_BYTES_MAX, Math.max(0, frameMax - BESIDE_BYTES));
  const sizes = Object.entries(headers).map(([name, value]) => ({
    name,
    bytes: sizeOf(name, value),
  }));
  let bytes = sizes.reduce((sum, header) => sum + header.bytes, 0);
  if (bytes <= bytesMax) return headers;
  const left = { ...headers };
  const leftOut: string[] = [];
  // The sender's own first: without ours it would not be known as a message of EscrowMQ.
  sizes.sort((a, b) => Number(isOurs(a.name)) - Number(isOurs(b.name)) || b.bytes - a.bytes);
  for (const header of sizes) {
    if (bytes + NAMES_CHARS_MAX * 3 <= bytesMax) break;
    delete left[header.name];
    leftOut.push(header.name);
    bytes -= header.bytes;
  }
  left[HEADERS.leftOut] = leftOut.join(',').slice(0, NAMES_CHARS_MAX).toWellFormed();
  return left;
}

const isOurs = (name: string) => name.startsWith('escrow-') || name === 'traceparent';

/** At least what it takes on the wire. */
function sizeOf(name: string, value: unknown): number {
  return Buffer.byteLength(name) + HEADER_FIXED_BYTES + sizeOfValue(value);
}

function sizeOfValue(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (typeof value !== 'object' || value === null) return 8;
  if (Buffer.isBuffer(value)) return value.length;
  const parts = Array.isArray(value)
    ? value.map((part) => ['', part] as const)
    : Object.entries(value);
  return parts.reduce((sum, [name, part]) => sum + sizeOf(name, part), 0);
}
