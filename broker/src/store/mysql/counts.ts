/**
 * As many rows of a state that owes nothing are counted; more is told as this many. There may be
 * hundreds of millions, and a million take 0.12 s of one of the server's cores.
 */
const FINISHED_COUNTED_MAX = 1_000_000;

const finished = (state: string) => `
  select '${state}', count(*), null from (
    select 1 from escrow_transaction force index (escrow_transaction_due)
    where state = '${state}' limit ${FINISHED_COUNTED_MAX}
  ) as ${state}`;

/**
 * How many rows there are in each state, when that which came first among them was prepared, and
 * what was purged; in one statement, because a purge that ends between two would be counted twice.
 *
 * Reads the index on what is due, and of the rows themselves three at most. An index entry has no
 * time of prepare but an id, and ids rise with time. Nobody waits for it, whatever it reads.
 */
export const countsByState = `
  select counted.name, counted.value, oldest.prepared_at
  from (
    select state as name, count(*) as value, min(id) as oldest_id
    from escrow_transaction force index (escrow_transaction_due)
    where state in ('prepared', 'committed', 'parked') group by state
  ) as counted left join escrow_transaction as oldest on oldest.id = counted.oldest_id
  union all ${finished('forwarded')}
  union all ${finished('rolledBack')}
  union all select name, value, null from escrow_counter`;
