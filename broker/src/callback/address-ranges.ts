import ipaddr from 'ipaddr.js';

/*
 * IP addresses and the ranges that lead somewhere else than to an ordinary host. An IPv4 address
 * written as IPv6 (`::ffff:127.0.0.1`) is taken as the IPv4 address it is, everywhere.
 */

export type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** A CIDR range: first address and prefix length. */
export type AddressRange = readonly [Address, number];

/** The parsed address, or undefined when the text is not one. IPv6 may stand in brackets. */
export function parseAddress(text: string): Address | undefined {
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  return ipaddr.isValid(bare) ? ipaddr.process(bare) : undefined;
}

/** A CIDR range or a single address as a range of one; undefined when the text is neither. */
export function parseRange(text: string): AddressRange | undefined {
  if (ipaddr.isValidCIDR(text)) {
    const [first, prefixLength] = ipaddr.parseCIDR(text);
    return [first, prefixLength];
  }
  const address = parseAddress(text);
  return address && [address, address.kind() === 'ipv4' ? 32 : 128];
}

export function isInRange(address: Address, [first, prefixLength]: AddressRange): boolean {
  return address.kind() === first.kind() && address.match(first, prefixLength);
}

function liesWithin(inner: AddressRange, outer: AddressRange): boolean {
  return inner[1] >= outer[1] && isInRange(inner[0], outer);
}

export type SpecialKind =
  | 'loopback'
  | 'link-local'
  | 'metadata'
  | 'unspecified'
  | 'multicast'
  | 'reserved'
  | 'tunnel';

/**
 * Ranges where a host name or a wide CIDR range is not consent enough: the host itself, cloud
 * metadata services, and the IPv6 forms that carry an IPv4 address past every IPv4 rule. Private
 * ranges are not among them: services inside a cluster are the normal case.
 */
const SPECIAL_RANGES: readonly { kind: SpecialKind; range: AddressRange }[] = (
  [
    ['loopback', '127.0.0.0/8'],
    ['loopback', '::1/128'],
    ['link-local', '169.254.0.0/16'],
    ['link-local', 'fe80::/10'],
    // Metadata services outside of the link-local range: Alibaba, AWS over IPv6.
    ['metadata', '100.100.100.200/32'],
    ['metadata', 'fd00:ec2::254/128'],
    // Linux connects to itself for any address of 0.0.0.0/8 that means "this host".
    ['unspecified', '0.0.0.0/8'],
    ['multicast', '224.0.0.0/4'],
    ['multicast', 'ff00::/8'],
    ['reserved', '192.0.0.0/24'],
    ['reserved', '240.0.0.0/4'],
    ['reserved', 'fec0::/10'],
    // NAT64, its local variant, SIIT, 6to4, Teredo, and the old "IPv4-compatible" form with `::`.
    ['tunnel', '64:ff9b::/96'],
    ['tunnel', '64:ff9b:1::/48'],
    ['tunnel', '::ffff:0:0:0/96'],
    ['tunnel', '2002::/16'],
    ['tunnel', '2001::/32'],
    ['tunnel', '::/96'],
  ] as const
).map(([kind, cidr]) => ({ kind, range: ipaddr.parseCIDR(cidr) }));

export interface SpecialRange {
  kind: SpecialKind;
  /** True for a range that lies wholly within the special one, so that it must have been meant. */
  isNamedBy(range: AddressRange): boolean;
}

/** The special range that the address belongs to; undefined for an ordinary address. */
export function specialRangeOf(address: Address): SpecialRange | undefined {
  const special = SPECIAL_RANGES.find(({ range }) => isInRange(address, range));
  return special && { kind: special.kind, isNamedBy: (range) => liesWithin(range, special.range) };
}
