import { EscrowError } from '@escrowmq/protocol';
import type { Address, AddressRange } from './address-ranges.js';
import { isInRange, parseAddress, parseRange, specialRangeOf } from './address-ranges.js';

/*
 * Which check URLs the broker may call. Producers register these URLs, so without a rule the
 * broker would be everybody's way into its own network.
 *
 * The rule is asked three times. On the URL itself, when it is registered and before every call.
 * On every address that its host name resolves to. And on the address at the other end of every
 * connection: a resolver hook never hears of a URL whose host is an IP address, and a name may
 * resolve differently the second time.
 *
 * A pattern is a host, `*.suffix` (not the suffix itself), an IP address or a CIDR range, each but
 * the range optionally with `:port`, each optionally after `https://`, which then is required.
 * Without a port, every port is meant. A name that no pattern mentions may still be called when
 * everything it resolves to lies in an allowed range.
 *
 * Loopback, link-local, multicast and the like (see address-ranges.ts) need a range that names
 * them: a host name that resolves there is refused, and so is `0.0.0.0/0`.
 */

export interface CallbackPolicy {
  /**
   * Why this URL may not be called, to be read after "the check URL … may not be called: ";
   * undefined when it may. A host name's addresses are checked later, by `addressProblem`.
   */
  checkUrlProblem(url: string): string | undefined;
  /** Why a connection for this URL may not go to this IP address; undefined when it may. */
  addressProblem(url: URL, address: string): string | undefined;
}

export interface CallbackPolicyOptions {
  /** Patterns, separated by commas; `''` allows nothing. @example 'https://*.shop.example,10.0.0.0/8' */
  allow: string;
  /** Callers on this machine only: then the broker may call this machine, on every port. */
  loopbackAllowed: boolean;
}

interface Pattern {
  match:
    | { kind: 'host'; host: string }
    | { kind: 'suffix'; suffix: string }
    | { kind: 'range'; range: AddressRange };
  port: string | undefined;
  httpsOnly: boolean;
}

/**
 * @throws EscrowError `INVALID_CONFIGURATION` for a pattern that can't be read.
 * @example createCallbackPolicy({ allow: 'accounts:8080,10.0.0.0/8', loopbackAllowed: false })
 */
export function createCallbackPolicy(options: CallbackPolicyOptions): CallbackPolicy {
  const { loopbackAllowed } = options;
  const patterns = options.allow
    .split(',')
    .map((text) => text.trim())
    .filter((text) => text !== '')
    .map(parsePattern);

  function addressAllowed(url: URL, address: Address): string | undefined {
    const fitting = patterns.filter((pattern) => fitsSchemeAndPort(pattern, url));
    const ranges = fitting
      .map(({ match }) => (match.kind === 'range' ? match.range : undefined))
      .filter((range) => range !== undefined && isInRange(address, range));
    const namedHost = fitting.some((pattern) => matchesName(pattern, hostOf(url)));
    const special = specialRangeOf(address);
    if (special === undefined) {
      if (namedHost || ranges.length > 0) return undefined;
      return `the address ${address} is not allowed by ESCROW_CALLBACK_ALLOW`;
    }
    if (special.kind === 'loopback') {
      // Whoever allows the name "localhost" has said loopback in so many words.
      if (loopbackAllowed || (namedHost && isLocalhost(hostOf(url)))) return undefined;
    }
    if (ranges.some((range) => range !== undefined && special.isNamedBy(range))) return undefined;
    return `the ${special.kind} address ${address} needs a range of its own in ESCROW_CALLBACK_ALLOW`;
  }

  function hostNameProblem(url: URL): string | undefined {
    const host = hostOf(url);
    if (isLocalhost(host) && loopbackAllowed) return undefined;
    const fitting = patterns.filter((pattern) => fitsSchemeAndPort(pattern, url));
    // A range decides once the name has been resolved.
    if (fitting.some((pattern) => pattern.match.kind === 'range' || matchesName(pattern, host))) {
      return undefined;
    }
    const otherwise = patterns.filter((pattern) => matchesName(pattern, host));
    if (otherwise.length > 0) {
      return `the host ${host} is allowed by ESCROW_CALLBACK_ALLOW with another port or https only`;
    }
    return `the host ${host} is not allowed by ESCROW_CALLBACK_ALLOW`;
  }

  return {
    checkUrlProblem(text) {
      if (!URL.canParse(text)) return 'it is not a URL';
      const url = new URL(text);
      if (url.protocol !== 'http:' && url.protocol !== 'https:') return 'it is not http or https';
      if (url.username !== '' || url.password !== '') return 'it carries a user or password';
      // The URL parser has turned 0x7f.1, 2130706433 and the like into plain addresses.
      const address = parseAddress(url.hostname);
      return address === undefined ? hostNameProblem(url) : addressAllowed(url, address);
    },
    addressProblem(url, text) {
      const address = parseAddress(text);
      if (address === undefined) return 'the resolver answered something that is not an IP address';
      return addressAllowed(url, address);
    },
  };
}

function parsePattern(text: string): Pattern {
  const schemed = /^https:\/\/(.*)$/i.exec(text);
  const rest = schemed?.[1] ?? text;
  const httpsOnly = schemed !== null;
  const range = parseRange(rest);
  if (range !== undefined) {
    return { match: { kind: 'range', range: plainRange(range, text) }, port: undefined, httpsOnly };
  }
  const parts = /^(\*\.)?(\[[^\]]+\]|[^:/*?#@[\]\s]+)(?::(\d{1,5}))?$/.exec(rest);
  const urlText = `http://${parts?.[2]}/`;
  if (parts === null || !URL.canParse(urlText)) throw unreadable(text, 'it is none of these');
  const host = hostOf(new URL(urlText));
  const port = parts[3];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535)) {
    throw unreadable(text, 'the port is out of range');
  }
  const address = parseAddress(host);
  if (parts[1] !== undefined) {
    if (address !== undefined) throw unreadable(text, 'an address has no suffix');
    return { match: { kind: 'suffix', suffix: `.${host}` }, port, httpsOnly };
  }
  if (address === undefined) return { match: { kind: 'host', host }, port, httpsOnly };
  const single: AddressRange = [address, address.kind() === 'ipv4' ? 32 : 128];
  return { match: { kind: 'range', range: single }, port, httpsOnly };
}

/** Addresses are compared as IPv4 where they are IPv4, so a mapped range would never match. */
function plainRange(range: AddressRange, text: string): AddressRange {
  const [first] = range;
  if (first.kind() === 'ipv6' && first.range() === 'ipv4Mapped') {
    throw unreadable(text, 'write the range as IPv4');
  }
  return range;
}

function unreadable(pattern: string, why: string): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    `ESCROW_CALLBACK_ALLOW has the pattern "${pattern}", which can't be read: ${why}. ` +
      'Legal are host, host:port, *.suffix, an IP address and a CIDR range such as 10.0.0.0/8, ' +
      'each optionally after https://',
  );
}

function fitsSchemeAndPort(pattern: Pattern, url: URL): boolean {
  if (pattern.httpsOnly && url.protocol !== 'https:') return false;
  return pattern.port === undefined || Number(pattern.port) === portOf(url);
}

function matchesName({ match }: Pattern, host: string): boolean {
  if (match.kind === 'host') return match.host === host;
  return match.kind === 'suffix' && host.endsWith(match.suffix) && host !== match.suffix;
}

/** The host in lower case and without the dot that may end a fully qualified name. */
function hostOf(url: URL): string {
  return url.hostname.replace(/\.$/, '');
}

function isLocalhost(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost');
}

function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port);
  return url.protocol === 'https:' ? 443 : 80;
}
