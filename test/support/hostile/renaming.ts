/** Renames the columns of all rows in an answer, as mappers of names do: `write_token` → `WriteToken`. */
export function renamed(answer: unknown): unknown {
  if (Array.isArray(answer)) return answer.map(renamed);
  if (typeof answer !== 'object' || answer === null) return answer;
  if (answer instanceof Date || answer instanceof Uint8Array) return answer;
  return Object.fromEntries(
    Object.entries(answer).map(([name, value]) => [pascal(name), renamed(value)]),
  );
}

const pascal = (name: string) =>
  name.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
