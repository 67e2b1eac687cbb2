import 'reflect-metadata';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import {
  type CheckHandler,
  type CheckMountOptions,
  expressCheckHandler,
  type FastifyCheckOptions,
  fastifyCheckPlugin,
  fetchCheckHandler,
  nestCheckMiddleware,
  nodeCheckListener,
} from '@escrowmq/producer';
import { type MiddlewareConsumer, Module, RequestMethod } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import express from 'express';
// @ts-expect-error Without types of its own; what is used here is the same in both.
import express4 from 'express4';
import fastify, { type FastifyInstance } from 'fastify';

/** An application of some framework, with a check handler at `url`. */
export interface Mounted {
  url: string;
  close(): Promise<void>;
}

export interface CheckMount {
  name: string;
  start(check: CheckHandler, options: CheckMountOptions): Promise<Mounted>;
}

const PATH = '/escrow-check';

async function listen(server: http.Server): Promise<Mounted> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}${PATH}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** What runtimes with `Request` and `Response` do with a connection. */
function fetchServer(handle: (request: Request) => Promise<Response>): http.Server {
  return http.createServer(async (incoming, outgoing) => {
    const { method = 'GET' } = incoming;
    const bodyless = method === 'GET' || method === 'HEAD';
    const request = new Request(`http://127.0.0.1${incoming.url}`, {
      method,
      headers: Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]),
      ...(bodyless ? {} : { body: Readable.toWeb(incoming) as ReadableStream, duplex: 'half' }),
    });
    const response = await handle(request);
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.end(await response.text());
  });
}

type MountOn = (app: express.Express, check: express.RequestHandler) => void;

/** The same application on both versions of Express. */
function onExpress(name: string, mount: MountOn): CheckMount[] {
  const versions: [string, typeof express][] = [
    ['Express 4', express4],
    ['Express 5', express],
  ];
  return versions.map(([version, make]) => ({
    name: `${version}, ${name}`,
    start(check, options) {
      const app = make();
      mount(app, expressCheckHandler(check, options));
      return listen(http.createServer(app));
    },
  }));
}

async function registered(
  app: FastifyInstance,
  options: FastifyCheckOptions & { prefix?: string },
): Promise<Mounted> {
  // biome-ignore lint/nursery/noMisusedPromises: Fastify waits for what a plugin returns.
  await app.register(fastifyCheckPlugin, options);
  const { prefix = '', path = PATH } = options;
  return {
    url: `${await app.listen({ port: 0, host: '127.0.0.1' })}${prefix}${path}`,
    close: () => app.close(),
  };
}

/** Without decorators: the module is told by hand what it is. */
function nestModule(configure?: (consumer: MiddlewareConsumer) => void) {
  class AppModule {
    configure(consumer: MiddlewareConsumer): void {
      configure?.(consumer);
    }
  }
  Module({})(AppModule);
  return AppModule;
}

const EVERY_METHOD = { path: PATH, method: RequestMethod.ALL };

/** Mounts on node:http that read the body themselves, and so hold its limits. */
export const STREAMING_NODE: CheckMount[] = [
  {
    name: 'node:http',
    start: (check, options) => listen(http.createServer(nodeCheckListener(check, options))),
  },
  ...onExpress('before express.json()', (app, check) => {
    app.post(PATH, check);
    app.use(express.json());
  }),
  ...onExpress('app.use, behind a parser of something else', (app, check) => {
    app.use(express.urlencoded({ extended: false }));
    app.use(PATH, check);
  }),
  {
    name: 'Fastify',
    async start(check, options) {
      const app = fastify();
      app.get('/', async () => 'hello');
      return registered(app, { check, ...options });
    },
  },
  {
    name: 'Fastify, with a prefix and a parser for everything',
    async start(check, options) {
      const app = fastify();
      app.addContentTypeParser('*', { parseAs: 'string' }, (_request, _body, done) =>
        done(null, 1),
      );
      return registered(app, { check, ...options, path: '/ask', prefix: '/a' });
    },
  },
  {
    name: 'Nest on Express, app.use',
    async start(check, options) {
      const app = await NestFactory.create(nestModule(), { logger: false });
      app.setGlobalPrefix('api');
      app.use(PATH, nestCheckMiddleware(check, options));
      await app.listen(0, '127.0.0.1');
      return { url: `${await app.getUrl()}${PATH}`, close: () => app.close() };
    },
  },
  {
    name: 'Nest on Fastify, app.use',
    async start(check, options) {
      const app = await NestFactory.create(nestModule(), new FastifyAdapter(), { logger: false });
      app.setGlobalPrefix('api');
      app.use(PATH, nestCheckMiddleware(check, options));
      await app.listen(0, '127.0.0.1');
      return { url: `${await app.getUrl()}${PATH}`, close: () => app.close() };
    },
  },
  {
    name: 'Nest on Fastify, a middleware of a module',
    async start(check, options) {
      const module = nestModule((consumer) => {
        consumer.apply(nestCheckMiddleware(check, options)).forRoutes(EVERY_METHOD);
      });
      const app = await NestFactory.create(module, new FastifyAdapter(), { logger: false });
      await app.listen(0, '127.0.0.1');
      return { url: `${await app.getUrl()}${PATH}`, close: () => app.close() };
    },
  },
];

/** All mounts that read the body themselves. */
export const STREAMING: CheckMount[] = [
  ...STREAMING_NODE,
  {
    name: 'fetch',
    start: (check, options) => listen(fetchServer(fetchCheckHandler(check, options))),
  },
];

/** Mounts behind a parser that kept the raw body. */
export const BUFFERED: CheckMount[] = [
  ...onExpress('behind express.raw()', (app, check) => {
    app.use(express.raw({ type: '*/*' }));
    app.post(PATH, check);
  }),
  ...onExpress('behind express.json() that keeps rawBody', (app, check) => {
    const verify = (request: http.IncomingMessage, _response: unknown, bytes: Buffer) => {
      Object.assign(request, { rawBody: bytes });
    };
    app.use(express.json({ verify }));
    app.post(PATH, check);
  }),
  {
    name: 'Nest on Express, a middleware of a module, with rawBody',
    async start(check, options) {
      const module = nestModule((consumer) => {
        consumer.apply(nestCheckMiddleware(check, options)).forRoutes(EVERY_METHOD);
      });
      const app = await NestFactory.create(module, { logger: false, rawBody: true });
      await app.listen(0, '127.0.0.1');
      return { url: `${await app.getUrl()}${PATH}`, close: () => app.close() };
    },
  },
];

/** Mounts that come too late: somebody has read the body and kept no bytes. */
export const CONSUMED: CheckMount[] = [
  {
    name: 'node:http, when the body was read before',
    start: (check, options) => {
      const listener = nodeCheckListener(check, options);
      return listen(
        http.createServer((request, response) => {
          request.resume().once('end', () => listener(request, response));
        }),
      );
    },
  },
  ...onExpress('behind express.json()', (app, check) => {
    app.use(express.json());
    app.post(PATH, check);
  }),
  {
    name: 'Nest on Express, a middleware of a module, without rawBody',
    async start(check, options) {
      const module = nestModule((consumer) => {
        consumer.apply(nestCheckMiddleware(check, options)).forRoutes(EVERY_METHOD);
      });
      const app = await NestFactory.create(module, { logger: false });
      await app.listen(0, '127.0.0.1');
      return { url: `${await app.getUrl()}${PATH}`, close: () => app.close() };
    },
  },
  {
    name: 'fetch, when the body was read before',
    start: (check, options) => {
      const handle = fetchCheckHandler(check, options);
      return listen(
        fetchServer(async (request) => {
          await request.text();
          return handle(request);
        }),
      );
    },
  },
];
