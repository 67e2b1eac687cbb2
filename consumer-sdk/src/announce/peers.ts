import type { Announcement } from '@escrowmq/protocol';
import type { ConsumerEvent, Instance } from '../events.js';
import { type AnnouncedSubject, disagreements, shortened } from './disagreement.js';

/*
 * The other instances of one subscription's group, as they announce themselves, and what was said of
 * their disagreement: once for each instance and subject, again when it changes, and when it is
 * over. They are somebody's word, so their number is bounded, and so is what they can have us say.
 */

/** Three announcements that did not come. */
export const PEER_LOST_AFTER_MS = 200_000;
/** More than any group has; beyond it nobody new is listened to. */
const PEERS_MAX = 1_000;
/** In a minute. What is not said then is said with a later announcement. */
const SAID_PER_MINUTE_MAX = 20;
const MINUTE_MS = 60_000;

interface Peer {
  announced: Announcement;
  heardAt: number;
  /** By subject, both values. */
  said: Map<AnnouncedSubject, string>;
}

export class Peers {
  readonly #mine: Announcement;
  readonly #peers = new Map<string, Peer>();
  #saidSince = Number.NEGATIVE_INFINITY;
  #said = 0;

  constructor(mine: Announcement) {
    this.#mine = mine;
  }

  /**
   * @param now ms on a clock that only goes forward
   * @returns what is to be said
   */
  heard(announced: Announcement, now: number): ConsumerEvent[] {
    const known = this.#peers.get(announced.instance);
    if (announced.ends === true) return known === undefined ? [] : this.#lose(known, 'ended');
    if (known === undefined && this.#peers.size >= PEERS_MAX) return [];
    const peer: Peer = { announced, heardAt: now, said: known?.said ?? new Map() };
    this.#peers.set(announced.instance, peer);
    const current = disagreements(this.#mine, announced);
    const settled = [...peer.said.keys()].filter(
      (about) => !current.some((disagreement) => disagreement.about === about),
    );
    const events = settled.map((about) => this.#over(peer, about, 'agrees'));
    for (const { about, mine, theirs } of current) {
      const both = JSON.stringify([mine, theirs]);
      if (peer.said.get(about) === both || !this.#maySay(now)) continue;
      peer.said.set(about, both);
      events.push({
        event: 'groupDisagrees',
        ...this.#between(peer),
        about,
        mine: shortened(mine),
        theirs: shortened(theirs),
      });
    }
    return events;
  }

  /** Forgets those that are not heard of any more. */
  expire(now: number): ConsumerEvent[] {
    return [...this.#peers.values()]
      .filter(({ heardAt }) => now - heardAt > PEER_LOST_AFTER_MS)
      .flatMap((peer) => this.#lose(peer, 'silent'));
  }

  #lose(peer: Peer, why: 'ended' | 'silent'): ConsumerEvent[] {
    this.#peers.delete(peer.announced.instance);
    return [...peer.said.keys()].map((about) => this.#over(peer, about, why));
  }

  #over(peer: Peer, about: AnnouncedSubject, why: 'agrees' | 'ended' | 'silent'): ConsumerEvent {
    peer.said.delete(about);
    return { event: 'groupAgrees', ...this.#between(peer), about, why };
  }

  #between({ announced }: Peer) {
    const { topic, group = '' } = this.#mine;
    return { topic, group, me: instanceOf(this.#mine), other: instanceOf(announced) };
  }

  #maySay(now: number): boolean {
    if (now - this.#saidSince >= MINUTE_MS) {
      this.#saidSince = now;
      this.#said = 0;
    }
    this.#said += 1;
    return this.#said <= SAID_PER_MINUTE_MAX;
  }
}

const instanceOf = ({ host, instance, version }: Announcement): Instance => ({
  host,
  instance,
  version,
});
