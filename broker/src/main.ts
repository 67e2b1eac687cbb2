#!/usr/bin/env -S node --max-semi-space-size=64
import { isEscrowError } from '@escrowmq/protocol';
import { startBroker } from './broker.js';
import { type Config, parseConfig } from './config.js';
import { createLog } from './observe/log.js';
import { safeUrl } from './observe/redact.js';

/** The process: configuration, start, signals, exit codes. */
function configOrExit(): Config {
  try {
    return parseConfig(process.env, process.stdout.isTTY);
  } catch (error) {
    if (!isEscrowError(error)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}

const config = configOrExit();
const log = createLog({ ...config.log, secrets: config.secrets });
if (config.unknownVariables.length > 0) {
  log.warn('unknown variables', { names: config.unknownVariables });
}

let stop: (() => Promise<void>) | undefined;
// From the first moment on: as process 1 of a container, it would get no signal without a handler.
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => void shutDown(signal));
}

try {
  const broker = await startBroker(config, log);
  log.info('listening', {
    address: broker.address,
    store: safeUrl(config.storeUrl),
    rabbitmq: safeUrl(config.rabbitmqUrl),
  });
  if (config.apiKeys.length === 0) {
    log.info('no API keys are set: everybody on this machine may do everything');
  }
  stop = broker.stop;
} catch (error) {
  log.error('the broker could not start', {}, error);
  process.exit(1);
}

/** Before the broker has started there is nothing in hand, and the process just ends. */
async function shutDown(signal: NodeJS.Signals): Promise<void> {
  log.info('shutting down', { signal });
  if (stop === undefined) process.exit(0);
  // Whatever does not end in time is repeated by leases and checks, as after a crash.
  setTimeout(() => {
    log.error('shutdown took too long', { limitMs: config.shutdownMs });
    process.exit(1);
  }, config.shutdownMs).unref();
  try {
    await stop();
    log.info('stopped');
    process.exitCode = 0;
  } catch (error) {
    log.error('shutdown failed', {}, error);
    process.exitCode = 1;
  }
}
