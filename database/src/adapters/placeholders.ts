/** `$1`, `$2`, … for each `?`: what PostgreSQL's own protocol takes. */
export function numbered(sql: string): string {
  let count = 0;
  return sql.replaceAll('?', () => {
    count += 1;
    return `$${count}`;
  });
}
