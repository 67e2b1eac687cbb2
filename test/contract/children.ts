import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A process that runs store-child.mjs. It ends with its input, so also when this one dies. */
export interface Child {
  nextLine(): Promise<string>;
  send(line: string): void;
  /** Closes its input and waits for its end. */
  end(): Promise<void>;
}

const SCRIPT = fileURLToPath(new URL('store-child.mjs', import.meta.url));

export function startChild(...args: string[]): Child {
  const child: ChildProcess = spawn(process.execPath, [SCRIPT, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('the child has no pipes');
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return {
    async nextLine() {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`the child ended (${child.exitCode}) without a word`);
      return value;
    },
    send: (line) => stdin.write(`${line}\n`),
    async end() {
      stdin.end();
      await ended;
    },
  };
}
