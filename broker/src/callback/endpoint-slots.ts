import type { Breaker, BreakerLimits } from './breaker.js';
import { beginCall, CLOSED, callFailed, mayCall } from './breaker.js';

/*
 * What is remembered of one producer group's endpoints: how many calls each has under way,
 * its breaker, and whose turn it is. No I/O and no clock.
 */

interface Endpoint {
  underWay: number;
  breaker: Breaker;
  /** Why the last call got no answer. */
  lastDetail: string;
}

/** A slot taken at an endpoint; given back by `release`. */
export interface Slot {
  url: string;
  probe: boolean;
}

export type Choice =
  | { kind: 'slot'; slot: Slot }
  /** Some endpoint would be called, but all of those have their full number under way. */
  | { kind: 'busy' }
  | { kind: 'none'; detail: string };

export interface SlotEnd {
  now: number;
  /** Absent for an answer. */
  failure?: string;
}

/** The breaker of an endpoint has just opened or closed. */
export interface BreakerChange {
  url: string;
  opened: boolean;
}

export class EndpointSlots {
  private urls: readonly string[] = [];
  private concurrencyMax = 1;
  private readonly endpoints = new Map<string, Endpoint>();
  private turn = 0;
  private readonly limits: BreakerLimits;
  /** What the endpoints are for, as it stands in messages. */
  private readonly purpose: string;

  constructor(limits: BreakerLimits, purpose: string) {
    this.limits = limits;
    this.purpose = purpose;
  }

  /** Takes over the group as it is registered now; endpoints it no longer has are forgotten. */
  configure(urls: readonly string[], concurrencyMax: number): void {
    this.urls = urls;
    this.concurrencyMax = concurrencyMax;
    for (const [url, { underWay }] of this.endpoints) {
      if (underWay === 0 && !urls.includes(url)) this.endpoints.delete(url);
    }
  }

  /** Takes a slot at the endpoint whose turn it is, or at the next one that takes a call. */
  choose(now: number): Choice {
    let busy = false;
    let lastDetail = '';
    for (let step = 0; step < this.urls.length; step += 1) {
      const url = this.urls[(this.turn + step) % this.urls.length];
      if (url === undefined) break;
      const endpoint = this.endpointOf(url);
      if (!mayCall(endpoint.breaker, now)) {
        lastDetail = endpoint.lastDetail;
      } else if (endpoint.underWay >= this.concurrencyMax) {
        busy = true;
      } else {
        const probe = endpoint.breaker.state === 'open';
        endpoint.breaker = beginCall(endpoint.breaker);
        endpoint.underWay += 1;
        return { kind: 'slot', slot: { url, probe } };
      }
    }
    if (busy) return { kind: 'busy' };
    const detail =
      this.urls.length === 0
        ? `the producer group has no ${this.purpose} URL`
        : `breaker open after ${lastDetail}`;
    return { kind: 'none', detail };
  }

  release(slot: Slot, end: SlotEnd): BreakerChange | undefined {
    const endpoint = this.endpointOf(slot.url);
    const before = endpoint.breaker.state;
    endpoint.underWay -= 1;
    if (end.failure === undefined) {
      endpoint.breaker = CLOSED;
    } else {
      endpoint.lastDetail = end.failure;
      const call = { now: end.now, probe: slot.probe };
      endpoint.breaker = callFailed(endpoint.breaker, call, this.limits);
      // The next question goes to the next endpoint; one that answers keeps its turn.
      if (this.urls[this.turn % this.urls.length] === slot.url) this.turn += 1;
    }
    const after = endpoint.breaker.state;
    if (before === 'closed' && after === 'open') return { url: slot.url, opened: true };
    if (before !== 'closed' && after === 'closed') return { url: slot.url, opened: false };
    return undefined;
  }

  /**
   * Calls that would begin at once. Without limit where none is made: no endpoint, or breakers
   * open; a half-open one takes its one probe.
   */
  room(now: number): number {
    const callable = this.urls
      .map((url) => this.endpointOf(url))
      .filter(({ breaker }) => mayCall(breaker, now));
    if (callable.length === 0) return Number.POSITIVE_INFINITY;
    return callable
      .map(({ breaker, underWay }) =>
        breaker.state === 'closed' ? Math.max(0, this.concurrencyMax - underWay) : 1,
      )
      .reduce((sum, free) => sum + free, 0);
  }

  get idle(): boolean {
    return [...this.endpoints.values()].every(({ underWay }) => underWay === 0);
  }

  private endpointOf(url: string): Endpoint {
    let endpoint = this.endpoints.get(url);
    if (endpoint === undefined) {
      endpoint = { underWay: 0, breaker: CLOSED, lastDetail: '' };
      this.endpoints.set(url, endpoint);
    }
    return endpoint;
  }
}
