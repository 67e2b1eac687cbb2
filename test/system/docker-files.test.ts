import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { VARIABLES } from '../../broker/src/config.js';

/*
 * What can be known of the Dockerfile and the compose file without an engine: that they fit the
 * rest of the repository. docs/containers.md has the commands that try them for real.
 */

interface Service {
  environment: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
}
interface Compose {
  services: Record<'broker' | 'mysql' | 'rabbitmq', Service>;
  volumes: Record<string, unknown>;
}
interface Manifest {
  version: string;
  dependencies: Record<string, string>;
}

const ROOT = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), 'utf8');
const manifest = (folder: string) => JSON.parse(read(`${folder}/package.json`)) as Manifest;

const dockerfile = read('Dockerfile');
const composeText = read('docker-compose.yml');
const compose = parse(composeText) as Compose;
const { broker, mysql, rabbitmq } = compose.services;

test('the image is labelled with the version of the broker', () => {
  const [, label] = /image\.version="([^"]*)"/.exec(dockerfile) ?? [];
  expect(label).toBe(manifest('broker').version);
});

/** The folders of a workspace's packages of ours, and of those that these need. */
function foldersNeededBy(folder: string): string[] {
  const direct = Object.keys(manifest(folder).dependencies)
    .filter((name) => name.startsWith('@escrowmq/'))
    .map((name) => name.replace('@escrowmq/', '').replace(/^(consumer|producer)$/, '$1-sdk'));
  return [...new Set(direct.flatMap((each) => [each, ...foldersNeededBy(each)]))];
}

test('the workspaces that the broker needs, and the broker, are what goes into the image', () => {
  const needed = foldersNeededBy('broker');
  const copied = [...dockerfile.matchAll(/^COPY (\S+)\/package\.json /gm)].map(([, name]) => name);
  const built = [...dockerfile.matchAll(/^COPY --from=build \S+ (\S+)\/dist$/gm)];
  const admitted = [...read('.dockerignore').matchAll(/^!(\S+)\/src$/gm)].map(([, name]) => name);
  expect(copied.sort()).toEqual(['broker', ...needed].sort());
  expect(built.map(([, name]) => name).sort()).toEqual(copied);
  expect(admitted.sort()).toEqual(copied);
});

test('the image and the compose file set variables that the broker knows', () => {
  const inImage = [...dockerfile.matchAll(/^ENV (ESCROW_\w+)=/gm)].map(([, name]) => name);
  expect(inImage).toEqual(['ESCROW_LISTEN']);
  expect(VARIABLES).toEqual(
    expect.arrayContaining([...inImage, ...Object.keys(broker.environment)]),
  );
});

test('the compose file publishes on loopback only, and the database not at all', () => {
  const ports = Object.values(compose.services).flatMap(({ ports }) => ports ?? []);
  expect(ports).toHaveLength(3);
  for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
  expect(mysql.ports).toBeUndefined();
});

test('a secret has no default, and every variable of the compose file is documented', () => {
  const page = read('docs/containers.md');
  const used = [...composeText.matchAll(/\$\{(\w+)(:[?-])?/g)];
  const guarded = new Set(used.filter(([, , mark]) => mark !== undefined).map(([, name]) => name));
  for (const [, name, mark] of used) {
    expect(page).toContain(`\`${name}\``);
    // Without a mark it would be empty when it is not set, unless it is required elsewhere.
    expect(guarded).toContain(name);
    if (/PASSWORD|KEYS/.test(name ?? '')) expect(mark).not.toBe(':-');
  }
});

test('the broker waits for healthy servers, and their data stands on named volumes', () => {
  const conditions = Object.entries(broker.depends_on ?? {});
  expect(conditions.map(([name]) => name).sort()).toEqual(['mysql', 'rabbitmq']);
  for (const [, { condition }] of conditions) expect(condition).toBe('service_healthy');
  for (const server of [mysql, rabbitmq]) {
    expect(server.healthcheck?.test[0]).toBe('CMD');
    const [volume] = server.volumes?.[0]?.split(':') ?? [];
    expect(Object.keys(compose.volumes)).toContain(volume);
  }
});
