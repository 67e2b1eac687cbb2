/** What a user's code may throw or reject with, by what is odd about it. Each is made anew. */
export const HOSTILE_ERRORS: Record<string, () => unknown> = {
  'an object without a prototype': () => Object.create(null),
  undefined: () => undefined,
  null: () => null,
  'a symbol': () => Symbol('s'),
  'a BigInt': () => 7n,
  'an empty text': () => '',
  'a function': () => () => 'called',
  'an error whose message is an object': () => withProperty('message', { value: {} }),
  'an error whose message is a symbol': () => withProperty('message', { value: Symbol('s') }),
  'an error whose message throws': () => withProperty('message', { get: refuse }),
  'an error whose name throws': () => withProperty('name', { get: refuse }),
  'an error whose name is a number': () => withProperty('name', { value: 7 }),
  'an error whose stack throws': () => withProperty('stack', { get: refuse }),
  'an error whose cause throws': () => withProperty('cause', { get: refuse }),
  'an error whose code throws': () => withProperty('code', { get: refuse }),
  'an error that is its own cause': () => {
    const error = new Error('a cycle');
    error.cause = error;
    return error;
  },
  'an object whose toString throws': () => ({ toString: refuse }),
  'an object whose toString is none': () => ({ toString: undefined, valueOf: undefined }),
  'a proxy that was revoked': () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  'an error behind a proxy that was revoked': () => {
    const { proxy, revoke } = Proxy.revocable(new Error('gone'), {});
    revoke();
    return proxy;
  },
  'a proxy whose every trap throws': () =>
    new Proxy(new Error('trapped'), { get: refuse, has: refuse, getPrototypeOf: refuse }),
  'one that calls itself a RetryLater': () =>
    withProperty('ms', { get: refuse }, { name: 'RetryLater' }),
  'one that calls itself an EscrowError': () =>
    withProperty('details', { get: refuse }, { name: 'EscrowError', code: 'NOPE', fields: 7 }),
};

function refuse(): never {
  throw new Error('a trap');
}

function withProperty(name: string, property: PropertyDescriptor, more: object = {}): Error {
  return Object.defineProperty(Object.assign(new Error('odd'), more), name, property);
}
