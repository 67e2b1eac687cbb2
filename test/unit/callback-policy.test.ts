import { expect, test } from '@jest/globals';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { FORBIDDEN_URLS } from './callback-forbidden-urls.js';

const policy = (allow: string, loopbackAllowed = false) =>
  createCallbackPolicy({ allow, loopbackAllowed });

test('no spelling of loopback, link-local, metadata or another scheme is allowed by a name or by all of IPv4 and IPv6', () => {
  const wide = policy('accounts,*.example,0.0.0.0/0,::/0');
  // A name may stand for an address in a range, so "localhost" is refused after it is resolved.
  const literal = FORBIDDEN_URLS.filter(
    (url) => !URL.canParse(url) || !/localhost/.test(new URL(url).hostname),
  );
  expect(literal.length).toBeGreaterThan(40);
  expect(literal.filter((url) => wide.checkUrlProblem(url) === undefined)).toEqual([]);
  expect(wide.addressProblem(new URL('http://localhost/'), '127.0.0.1')).toContain('loopback');
});

test('without patterns nothing may be called', () => {
  const none = policy('');
  const ordinary = [
    'http://accounts/',
    'https://example.com/',
    'http://10.0.0.1/',
    'http://[2a00::1]/',
  ];
  const refused = [...FORBIDDEN_URLS, ...ordinary].filter((url) => none.checkUrlProblem(url));
  expect(refused).toHaveLength(FORBIDDEN_URLS.length + ordinary.length);
});

test('a broker on loopback may call loopback, and nothing else', () => {
  const loopback = policy('', true);
  for (const url of [
    'http://localhost:1/',
    'http://127.0.0.1:2/',
    'http://[::1]:3/',
    'http://0x7f.1/',
  ]) {
    expect(loopback.checkUrlProblem(url)).toBeUndefined();
  }
  for (const url of [
    'http://0.0.0.0/',
    'http://10.0.0.1/',
    'http://example.com/',
    'http://[::]/',
  ]) {
    expect(loopback.checkUrlProblem(url)).toBeDefined();
  }
  expect(loopback.addressProblem(new URL('http://localhost/'), '10.0.0.1')).toBeDefined();
});

test('a host pattern allows that host on every port, or on the one it names', () => {
  const hosts = policy('accounts, Orders:8080');
  expect(hosts.checkUrlProblem('http://accounts:1234/check')).toBeUndefined();
  expect(hosts.checkUrlProblem('https://ACCOUNTS./check')).toBeUndefined();
  expect(hosts.checkUrlProblem('http://orders:8080/')).toBeUndefined();
  expect(hosts.checkUrlProblem('http://orders/')).toContain('another port');
  expect(hosts.checkUrlProblem('http://accounts.evil/')).toContain('not allowed');
  expect(hosts.checkUrlProblem('http://evil-accounts/')).toContain('not allowed');
});

test('the default port counts as a port', () => {
  expect(policy('accounts:443').checkUrlProblem('https://accounts/')).toBeUndefined();
  expect(policy('accounts:443').checkUrlProblem('http://accounts/')).toBeDefined();
  expect(policy('accounts:80').checkUrlProblem('http://accounts/')).toBeUndefined();
});

test('a suffix pattern allows the names below it, not the suffix and not a name that ends alike', () => {
  const suffix = policy('*.shop.example');
  expect(suffix.checkUrlProblem('http://a.shop.example/')).toBeUndefined();
  expect(suffix.checkUrlProblem('http://a.b.shop.example/')).toBeUndefined();
  expect(suffix.checkUrlProblem('http://shop.example/')).toBeDefined();
  expect(suffix.checkUrlProblem('http://evilshop.example/')).toBeDefined();
  expect(suffix.checkUrlProblem('http://shop.example.evil/')).toBeDefined();
});

test('a pattern after https:// refuses http', () => {
  const secure = policy('https://accounts,https://10.0.0.0/8');
  expect(secure.checkUrlProblem('https://accounts/')).toBeUndefined();
  expect(secure.checkUrlProblem('http://accounts/')).toContain('https');
  expect(secure.checkUrlProblem('https://10.1.2.3/')).toBeUndefined();
  expect(secure.checkUrlProblem('http://10.1.2.3/')).toBeDefined();
});

test('a range allows its addresses and the names that resolve into it', () => {
  const range = policy('10.0.0.0/8,2a00:1::/32');
  expect(range.checkUrlProblem('http://10.9.8.7/')).toBeUndefined();
  expect(range.checkUrlProblem('http://[::ffff:10.9.8.7]/')).toBeUndefined();
  expect(range.checkUrlProblem('http://[2a00:1::5]/')).toBeUndefined();
  expect(range.checkUrlProblem('http://11.0.0.1/')).toBeDefined();
  const named = new URL('http://accounts/');
  expect(range.checkUrlProblem(named.href)).toBeUndefined();
  expect(range.addressProblem(named, '10.0.0.1')).toBeUndefined();
  expect(range.addressProblem(named, '::ffff:10.0.0.1')).toBeUndefined();
  expect(range.addressProblem(named, '8.8.8.8')).toContain('8.8.8.8');
  expect(range.addressProblem(named, '')).toBeDefined();
});

test('a host that is allowed by name may resolve to private addresses and never to special ones', () => {
  const named = policy('accounts');
  const url = new URL('http://accounts/');
  for (const address of ['10.0.0.1', '192.168.1.1', '8.8.8.8', 'fd12::1', '2a00::1']) {
    expect(named.addressProblem(url, address)).toBeUndefined();
  }
  for (const address of [
    '127.0.0.1',
    '::1',
    '169.254.169.254',
    'fe80::1%eth0',
    '0.0.0.0',
    '::',
    '224.0.0.1',
    '::ffff:127.0.0.1',
    '64:ff9b::a9fe:a9fe',
    'fd00:ec2::254',
  ]) {
    expect(named.addressProblem(url, address)).toBeDefined();
  }
  expect(named.addressProblem(new URL('http://other/'), '10.0.0.1')).toBeDefined();
});

test('a special address is allowed by a range of its own', () => {
  expect(policy('127.0.0.0/8').checkUrlProblem('http://127.0.0.1/')).toBeUndefined();
  expect(policy('127.0.0.1:81').checkUrlProblem('http://127.0.0.1:81/')).toBeUndefined();
  expect(policy('127.0.0.1:81').checkUrlProblem('http://127.0.0.1:82/')).toBeDefined();
  expect(policy('[::1]:81').checkUrlProblem('http://[::1]:81/')).toBeUndefined();
  expect(policy('169.254.10.0/24').checkUrlProblem('http://169.254.10.9/')).toBeUndefined();
  const named = policy('accounts,169.254.0.0/16');
  expect(named.addressProblem(new URL('http://accounts/'), '169.254.1.1')).toBeUndefined();
});

test('the name localhost as a pattern says loopback, and loopback only', () => {
  const localhost = policy('localhost');
  const url = new URL('http://localhost/');
  expect(localhost.checkUrlProblem(url.href)).toBeUndefined();
  expect(localhost.addressProblem(url, '::1')).toBeUndefined();
  expect(localhost.addressProblem(url, '169.254.169.254')).toBeDefined();
  expect(localhost.checkUrlProblem('http://127.0.0.1/')).toBeDefined();
});

test('a URL with user or password may not be called even when its host may', () => {
  expect(policy('accounts').checkUrlProblem('http://me:secret@accounts/')).toContain('user');
});

test.each([
  '*',
  '*.',
  'a*b',
  'http://accounts',
  'accounts/path',
  'accounts:0',
  'accounts:65536',
  'accounts:port',
  'user@accounts',
  '10.0.0.0/33',
  '10.0.0.0/',
  '*.10.0.0.1',
  '::ffff:10.0.0.0/104',
  'https://',
  'a b',
])('the pattern %p is refused with the legal forms', (pattern) => {
  expect(() => policy(pattern)).toThrow(
    expect.objectContaining({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining('Legal are'),
    }),
  );
});
