import { ProducerGroupRequest } from '@escrowmq/protocol';
import { expect, jest, test } from '@jest/globals';
import type { GroupToSave, ProducerGroup } from '../../broker/src/domain/ports.js';
import { createProducerGroups } from '../../broker/src/engine/producer-groups.js';
import { producerGroup, recordingObserver } from '../support/engine-fakes.js';
import { deferred } from '../support/ready.js';

const SECRET = 'whsec_new';
const URL_OF_CHECK = 'http://127.0.0.1:1/check';

function groups(initially: ProducerGroup[] = []) {
  const rows = new Map(initially.map((group) => [group.name, group]));
  const saved: GroupToSave[] = [];
  const reads: string[] = [];
  const parts = createProducerGroups({
    store: {
      async findGroup(name) {
        reads.push(name);
        return rows.get(name);
      },
      async saveGroup(group) {
        saved.push(group);
        const old = rows.get(group.name);
        const secretMade = old === undefined || group.rotate;
        const { name, checkUrls, compensationUrls, checkPolicy } = group;
        const { version = old?.version ?? 0 } = group;
        if (old !== undefined && version < old.version) {
          return { group: old, secretMade: false, applied: false };
        }
        const signingSecrets = secretMade
          ? [group.newSecret, ...(old?.signingSecrets ?? [])]
          : old.signingSecrets;
        const settings = { checkUrls, compensationUrls, checkPolicy };
        const row = { name, ...settings, version, signingSecrets };
        rows.set(name, row);
        return { group: row, secretMade, applied: true };
      },
    },
    checkUrlProblem: (url) => (url.includes('forbidden') ? 'its host is not allowed' : undefined),
    newSigningSecret: () => SECRET,
    observer: recordingObserver(),
  });
  return { ...parts, rows, saved, reads };
}

const request = (changes: object = {}) =>
  ProducerGroupRequest.parse({ checkUrls: [URL_OF_CHECK], ...changes });

test('a new group is told its signing secret', async () => {
  const { register } = groups();
  const { created, answer } = await register('accounts', request());
  expect(created).toBe(true);
  expect(answer).toMatchObject({
    producerGroup: 'accounts',
    checkUrls: [URL_OF_CHECK],
    signingSecret: SECRET,
  });
});

test('registering again changes the group and shows no secret', async () => {
  const { register, rows } = groups([producerGroup()]);
  const policy = { unknownMax: 3 };
  const { created, answer } = await register('accounts', request({ checkPolicy: policy }));
  expect(created).toBe(false);
  expect(Object.keys(answer)).not.toContain('signingSecret');
  expect(rows.get('accounts')?.checkPolicy.unknownMax).toBe(3);
});

test('settings of a lower version change nothing, and the answer shows what is stored', async () => {
  const { register } = groups();
  const newer = { version: 7, checkPolicy: { unknownMax: 7 } };
  expect((await register('accounts', request(newer))).answer).toMatchObject({
    version: 7,
    applied: true,
  });
  const older = { version: 6, checkUrls: [], rotateSecret: true };
  const { created, answer } = await register('accounts', request(older));
  expect(created).toBe(false);
  expect(answer).toEqual({
    producerGroup: 'accounts',
    checkUrls: [URL_OF_CHECK],
    compensationUrls: [],
    checkPolicy: expect.objectContaining({ unknownMax: 7 }),
    version: 7,
    applied: false,
  });
});

test('a rotation makes a new secret, for a group that is there', async () => {
  const { register } = groups([producerGroup()]);
  const { created, answer } = await register('accounts', request({ rotateSecret: true }));
  expect(created).toBe(false);
  expect(answer.signingSecret).toBe(SECRET);
});

test.each(['checkUrls', 'compensationUrls'])(
  'of %s one that may not be called refuses all of them',
  async (field) => {
    const { register, saved } = groups();
    const urls = [URL_OF_CHECK, 'http://forbidden.example/'];
    await expect(register('accounts', request({ [field]: urls }))).rejects.toMatchObject({
      code: 'CHECK_URL_NOT_ALLOWED',
      message: 'http://forbidden.example/: its host is not allowed',
    });
    expect(saved).toEqual([]);
  },
);

test('a description never shows the secrets', async () => {
  const { describe } = groups([producerGroup()]);
  expect(JSON.stringify(await describe('accounts'))).not.toContain('whsec_');
  expect(await describe('nobody')).toBeUndefined();
});

test('a group is read once for many prepares', async () => {
  const { find, reads } = groups([producerGroup()]);
  await find('accounts');
  await find('accounts');
  expect(reads).toEqual(['accounts']);
});

test('a group that is not there is looked for each time, so that it counts as soon as it is', async () => {
  const { find, rows } = groups();
  expect(await find('accounts')).toBeUndefined();
  rows.set('accounts', producerGroup());
  expect((await find('accounts'))?.name).toBe('accounts');
});

test('what was registered here counts at once', async () => {
  const { find, register } = groups([producerGroup()]);
  await find('accounts');
  await register('accounts', request({ checkPolicy: { unknownMax: 3 } }));
  expect((await find('accounts'))?.checkPolicy.unknownMax).toBe(3);
});

test("another instance's change is seen after two seconds", async () => {
  jest.useFakeTimers();
  try {
    const { find, rows } = groups([producerGroup()]);
    await find('accounts');
    rows.set('accounts', producerGroup({ unknownMax: 3 }));
    jest.advanceTimersByTime(1_999);
    expect((await find('accounts'))?.checkPolicy.unknownMax).toBe(15);
    jest.advanceTimersByTime(1);
    expect((await find('accounts'))?.checkPolicy.unknownMax).toBe(3);
  } finally {
    jest.useRealTimers();
  }
});

test('a group is read once for all who ask while it is read', async () => {
  const { find, cached, reads } = groups([producerGroup()]);
  expect(cached('accounts')).toBeUndefined();
  const found = await Promise.all([find('accounts'), find('accounts'), find('accounts')]);
  expect(found.map((group) => group?.name)).toEqual(['accounts', 'accounts', 'accounts']);
  expect(reads).toEqual(['accounts']);
  expect(cached('accounts')?.name).toBe('accounts');
});

test('what was being read while the group was saved is not kept', async () => {
  const old = deferred<ProducerGroup | undefined>();
  const saved = { ...producerGroup(), checkUrls: [URL_OF_CHECK] };
  const answers: (typeof old.promise)[] = [old.promise, Promise.resolve(producerGroup())];
  const { find, cached, register } = createProducerGroups({
    store: {
      findGroup: () => answers.shift() ?? Promise.resolve(saved),
      saveGroup: async () => ({ group: saved, secretMade: false, applied: true }),
    },
    checkUrlProblem: () => undefined,
    newSigningSecret: () => SECRET,
    observer: recordingObserver(),
  });
  const reading = find('accounts');
  await register('accounts', request());
  old.resolve({ ...producerGroup(), checkUrls: [] });
  await reading;
  expect(cached('accounts')).toBeUndefined();
  expect((await find('accounts'))?.checkUrls).toEqual([URL_OF_CHECK]);
});
