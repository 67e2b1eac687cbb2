import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher, Pool } from 'undici';

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/**
 * Sends one request and waits for the whole of its answer. By hand, because undici's own `request`
 * makes a stream and an abort signal for each: with small batches a tenth of the SDK's time.
 *
 * @param limitMs milliseconds for all of it, also for getting a connection
 * @throws what undici says of the connection, or an error that names the limit
 */
export function exchange(
  pool: Pool,
  request: Pick<Dispatcher.DispatchOptions, 'method' | 'path' | 'headers' | 'body'>,
  limitMs: number,
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    let controller: Dispatcher.DispatchController | undefined;
    let late: Error | undefined;
    let status = 0;
    let headers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    const timer = setTimeout(() => {
      late = new Error(`no answer within ${Math.round(limitMs)} ms`);
      controller?.abort(late);
      reject(late);
    }, limitMs);

    // Undici's own time-outs are off: they have a resolution of a second.
    const options = { ...request, headersTimeout: 0, bodyTimeout: 0 };
    pool.dispatch(options, {
      onRequestStart(started) {
        controller = started;
        // It got its connection only now, and nobody waits for it any more.
        if (late !== undefined) started.abort(late);
      },
      onResponseStart(_controller, statusCode, given) {
        status = statusCode;
        headers = given;
      },
      onResponseData(_controller, chunk) {
        chunks.push(chunk);
      },
      onResponseEnd() {
        clearTimeout(timer);
        resolve({ status, headers, text: Buffer.concat(chunks).toString() });
      },
      onResponseError(_controller, error) {
        clearTimeout(timer);
        reject(error);
      },
    });
  });
}
