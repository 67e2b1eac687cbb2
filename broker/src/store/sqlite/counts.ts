/** Each open state has an index of its own; see the first migration. */
const open = (state: string) => `
  select '${state}' as name, count(*) as value, min(rowid) as oldest_row
  from escrow_transaction indexed by escrow_transaction_${state} where state = '${state}'`;

/**
 * How many rows there are in each state, when that which came first among them was prepared, and
 * what was purged; in one statement, because a purge that ends between two would be counted twice.
 *
 * Nothing else runs meanwhile, so it reads no row that it can do without: an index has the number of
 * a row, which rises with time, and what stands in no index is the rest of all there are, a count
 * that SQLite takes from its pages. With a million open rows it takes 45 ms, with a million
 * forwarded ones 1 ms; to group the rows by their state took 500 ms.
 */
export const countsByState = `
  with counted as materialized (
    ${['prepared', 'committed', 'parked'].map(open).join(' union all ')}
    union all
    select 'rolledBack', count(*), null
    from escrow_transaction indexed by escrow_transaction_rolled_back where state = 'rolledBack'
  )
  select name, value,
    (select prepared_at from escrow_transaction where rowid = oldest_row) as prepared_at
  from counted
  union all
  select 'forwarded', (select count(*) from escrow_transaction) - (select sum(value) from counted), null
  union all
  select name, value, null from escrow_counter`;
