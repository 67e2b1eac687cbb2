/*
 * What can be done to the system under test. A fault is plain data, so that a schedule can be
 * printed, kept and done again.
 */

/** Between which two parties a proxy stands; decides which bytes are worth a trap. */
export type LinkKind = 'toBroker' | 'toEndpoint' | 'toStore' | 'toDatabase' | 'toRabbitmq';

export const LINKS = {
  'producer-1>broker-1': 'toBroker',
  'producer-1>broker-2': 'toBroker',
  'producer-2>broker-1': 'toBroker',
  'producer-2>broker-2': 'toBroker',
  'brokers>producer-1': 'toEndpoint',
  'brokers>producer-2': 'toEndpoint',
  'broker-1>store': 'toStore',
  'broker-2>store': 'toStore',
  'broker-1>rabbitmq': 'toRabbitmq',
  'broker-2>rabbitmq': 'toRabbitmq',
  'producer-1>database': 'toDatabase',
  'producer-2>database': 'toDatabase',
  'consumer-1>database': 'toDatabase',
  'consumer-2>database': 'toDatabase',
  'consumer-1>rabbitmq': 'toRabbitmq',
  'consumer-2>rabbitmq': 'toRabbitmq',
} as const satisfies Record<string, LinkKind>;
export type LinkName = keyof typeof LINKS;
export const LINK_NAMES = Object.keys(LINKS) as LinkName[];

export const PROCESSES = [
  'broker-1',
  'broker-2',
  'producer-1',
  'producer-2',
  'consumer-1',
  'consumer-2',
] as const;
export type ProcessName = (typeof PROCESSES)[number];

/** `store` holds the brokers' database, `services` those of producers and consumers. */
export const DATABASE_SERVERS = ['store', 'services'] as const;
export type DatabaseServerName = (typeof DATABASE_SERVERS)[number];

export type Fault =
  // On the network. `ms`: how long it lasts.
  | { kind: 'cut'; link: LinkName }
  | { kind: 'blackHole'; link: LinkName; ms: number }
  | { kind: 'delay'; link: LinkName; ms: number; eachMs: number }
  | { kind: 'throttle'; link: LinkName; ms: number; bytesPerSecond: number }
  /** At the statement or request that matters on that link. `ms`: until the trap is taken away. */
  | { kind: 'cutAtCommit'; link: LinkName; when: 'before' | 'after'; cuts: number; ms: number }
  // On processes. `ms`: until it is started or continued.
  | { kind: 'killProcess'; process: ProcessName; ms: number }
  | { kind: 'pauseProcess'; process: ProcessName; ms: number }
  // On servers.
  | { kind: 'killConnections'; server: DatabaseServerName }
  | { kind: 'readOnly'; server: DatabaseServerName; ms: number }
  | { kind: 'killServer'; server: DatabaseServerName | 'rabbitmq' };

export type FaultKind = Fault['kind'];

/** What a fault is done to. Two faults on one target wait for each other. */
export function targetOf(fault: Fault): string {
  if ('link' in fault) return fault.link;
  return 'process' in fault ? fault.process : fault.server;
}
