import { type Child, type ChildOptions, startChild } from './child.js';

/** The processes of the demo, all of them. */
export interface Crew {
  start(options: ChildOptions): Child;
  /** Rejects when one ends and nobody asked it to; never resolves. */
  readonly died: Promise<never>;
  killAll(): Promise<void>;
}

export function createCrew(): Crew {
  const members: Child[] = [];
  let reportDeath: (error: unknown) => void = () => {};
  const died = new Promise<never>((_, reject) => {
    reportDeath = reject;
  });
  // It may happen while nobody races against it, such as after the end.
  died.catch(() => {});
  return {
    died,
    start(options) {
      const child = startChild(options);
      members.push(child);
      child.died.catch(reportDeath);
      return child;
    },
    async killAll() {
      await Promise.all(members.map((member) => member.kill()));
    },
  };
}
