/** Tells in plain sentences what happens, each with the seconds since the start. */
export interface Narrator {
  /** A new step: a headline. */
  step(headline: string): void;
  say(sentence: string): void;
  /** Shows `done` of `total`: live on a terminal, otherwise a line now and then. */
  progress(label: string, total: number): Progress;
}

export interface Progress {
  advance(): void;
  /** Ends the live line. */
  end(): void;
}

/** A person sees ten changes a second as movement; more would only cost. */
const LIVE_INTERVAL_MS = 100;
/** In a log file, often enough to see that it moves. */
const LINE_INTERVAL_MS = 2_000;

export function createNarrator(out: NodeJS.WriteStream): Narrator {
  const startedAt = performance.now();
  const clock = () => `${((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)} s`;
  // On a terminal a live line may stand where this sentence goes; it is drawn again below.
  const clear = out.isTTY ? '\r\x1b[K' : '';
  const say = (sentence: string) => void out.write(`${clear}${clock()}    ${sentence}\n`);
  return {
    step: (headline) => void out.write(`${clear}\n${clock()}  ${headline}\n`),
    say,
    progress(label, total) {
      const live = out.isTTY;
      const beganAt = performance.now();
      let done = 0;
      let shownAt = beganAt;
      const text = () => {
        const perSecond = Math.round((done * 1000) / (performance.now() - beganAt + 1));
        return `${label}: ${done} of ${total} (${perSecond}/s)`;
      };
      return {
        advance() {
          done += 1;
          const now = performance.now();
          if (now - shownAt < (live ? LIVE_INTERVAL_MS : LINE_INTERVAL_MS)) return;
          shownAt = now;
          if (live) out.write(`\r${clock()}    ${text()}\x1b[K`);
          else if (done < total) say(text());
        },
        end: () => say(text()),
      };
    },
  };
}
