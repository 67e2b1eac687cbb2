import type { TopicPlaces } from '@escrowmq/protocol';
import { ReceivedMessage } from '../delivery/message.js';
import { type Arrived, type Fit, fitData } from './fit-data.js';

/**
 * The handler of a typed topic, called with messages whose data are what their schema gives; the handler
 * itself for a plain one. A message that fits no schema fails without it.
 */
export function typedHandler<Handler extends (message: never) => unknown>(
  handler: Handler,
  places: TopicPlaces | undefined,
): Handler {
  if (places === undefined) return handler;
  const fitAndHandle = (message: Arrived & { signal: AbortSignal }): unknown => {
    const fit = fitData(places, message);
    if (!(fit instanceof Promise)) return handler(withFit(message, fit));
    return fit.then((late) => {
      // Its time is over, or its channel is lost: nobody counts what the handler would do.
      message.signal.throwIfAborted();
      return handler(withFit(message, late));
    });
  };
  return fitAndHandle as (message: never) => unknown as Handler;
}

function withFit(message: Arrived, { data, version }: Fit): never {
  // It is the one that was made for this very call.
  if (message instanceof ReceivedMessage) {
    message.data = data as never;
    message.version = version;
  }
  return message as never;
}
