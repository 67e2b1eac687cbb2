/*
 * The protocol of EscrowMQ, for spin to walk through every state that it has.
 *
 * WHAT IS MODELLED. One transaction with one message, from prepare to its effect at one consumer
 * group. A producer that prepares, runs its local transaction with a barrier row, commits and sends
 * its verdict, and that may die between any two steps. One or two brokers without any lease, so that
 * both act on one row whenever they like; each may die between any two steps and loses what it knew.
 * Verdicts that are lost, late or repeated. Checks that are answered through the barrier, and whose
 * answers are lost. A RabbitMQ that stores a message and whose confirm is lost. A consumer that dies
 * between its COMMIT and its acknowledgement. Retention, in the configurations that say so.
 *
 * WHAT IS ABSTRACTED. One statement of a database is one step, because its database makes it one.
 * Time is an order of events: "old" comes at any moment, and what is promised for then is what the
 * code compares times for. Faults are limited in number (CRASHES, LOSSES): the properties of
 * progress ask what happens when they stop. Batches, leases and back-off change when something
 * happens and never whether it may; so they are left out, which allows more orders and not fewer.
 *
 * A word that the design has, this file has: states, decisions and steps are spelled the same. The
 * code's own place is named at each step.
 *
 * VARIANTS, one mistake each, by a define: see run.mjs, which says which property must catch it.
 */

#ifndef BROKERS
#define BROKERS 2
#endif
#ifndef CRASHES
#define CRASHES 2 /* of any process */
#endif
#ifndef LOSSES
#define LOSSES 2 /* of any request, answer, confirm or acknowledgement */
#endif
#ifndef UNKNOWN_MAX
#define UNKNOWN_MAX 2 /* answers "unknown" until the transaction is parked */
#endif
#ifndef COPIES
#define COPIES 2 /* of one verdict on the wire */
#endif

mtype:state = { absent, prepared, committed, forwarded, rolledBack, parked, tombstone };
mtype:decision = { undecided, commit, rollback, unknown };
mtype:barrier = { noRow, locked, rowCommit, rowRollback };

/* The broker's store. */
mtype:state state = absent;
mtype:decision decision = undecided; /* of the row, and of its tombstone */
byte unknownAnswers;

/* The producer's own database. `locked`: the row of a transaction that is still open. */
mtype:barrier barrier = noRow;
bool localCommitted;

/* On the wire. */
bool wasPrepared; /* a prepare was sent, and may come once more, late */
byte commits;     /* verdicts under way */
byte rollbacks;

/* RabbitMQ's queue and the consumer's own database. */
byte queue;
bool consumedRow;
byte applied;

/* The clocks: what is old may be purged, and is refused before that. */
bool barrierIsOld; /* longer ago than barrier rows are kept, less a day */
bool idIsOld;      /* longer ago than tombstones are kept, less a day */
byte publishing;   /* brokers that are about to publish; for the clocks alone */

byte crashes = CRASHES;
byte losses = LOSSES;

/* Guard and count are one step, or two processes would take the last one. */
#define crash atomic { crashes > 0 -> crashes-- }
#define loss atomic { losses > 0 -> losses-- }

/* A step of somebody who may die right before it. */
#define mayCrash(away) if :: crash -> goto away :: true fi

/* ---- what must always hold (asserted where it could break) */

inline decide(what) {
  assert(decision == undecided || decision == what);      /* a decision never reverses */
  assert(!(what == rollback && localCommitted));          /* what committed is never rolled back */
  decision = what
}

/* ---- the store's guarded statements: broker/src/store */

inline insertPrepared() {
  if
  :: state == absent && !idIsOld -> state = prepared; unknownAnswers = 0
  :: else -> skip /* a repeat, a tombstone, or an id that is too old: refused or answered from it */
  fi
}

inline storeCommit() {
  if
  :: state == prepared || state == parked -> decide(commit); state = committed
  :: else -> skip
  fi
}

inline storeRollback() {
  if
  :: state == prepared || state == parked -> decide(rollback); state = rolledBack
  :: else -> skip
  fi
}

inline storeUnknown() {
  if
  :: state == prepared ->
     unknownAnswers++;
     if
#ifdef GIVES_UP
     :: unknownAnswers >= UNKNOWN_MAX -> decide(rollback); state = rolledBack
#else
     :: unknownAnswers >= UNKNOWN_MAX -> state = parked
#endif
     :: else -> skip
     fi
  :: else -> skip
  fi
}

inline storeForwarded() {
  if
  :: state == committed -> state = forwarded
  :: else -> skip
  fi
}

/* ---- the check's side of the producer: producer-sdk/src/local/decide-outcome.ts */

/* Does not look, it decides: the row goes in as "rollback" unless there is one. */
inline decideOutcome(answer) {
  if
#ifdef LOOKS
  :: localCommitted -> answer = commit
  :: else -> answer = rollback
#else
  :: barrierIsOld -> answer = unknown         /* the row may be purged: nobody can tell */
  :: !barrierIsOld && barrier == noRow -> barrier = rowRollback; answer = rollback
  :: !barrierIsOld && barrier == rowCommit -> answer = commit
  :: !barrierIsOld && barrier == rowRollback -> answer = rollback
  :: !barrierIsOld && barrier == locked -> answer = unknown  /* the lock wait ran out */
#endif
  fi
}

/* ---- the producer: producer-sdk/src/local/transaction.ts */

/* The database ends what its connection left open. */
inline releaseLock() {
  if
  :: barrier == locked -> barrier = noRow
  :: else -> skip
  fi
}

inline commitLocally() {
#ifdef LOOKS
  barrier = rowCommit; localCommitted = true;
#else
  assert(barrier == locked);
  barrier = rowCommit;
  localCommitted = true;
#endif
  assert(decision != rollback) /* what is rolled back at the broker never commits here */
}

proctype Producer() {
  mtype:decision verdict = undecided;
  mtype:decision outcome;
  byte copies;

  mayCrash(dead);
  /* Prepare. Its answer came: without one, nothing is begun. */
  atomic { wasPrepared = true; insertPrepared() }
  mayCrash(dead);

  /* BEGIN, and the barrier row first of all. Too late after the prepare, it is not even tried. */
  atomic {
    if
    :: barrierIsOld -> verdict = rollback
#ifdef LOOKS
    :: else -> skip
#else
    :: !barrierIsOld && barrier == noRow -> barrier = locked
    :: !barrierIsOld && barrier != noRow -> verdict = rollback /* a check has decided: duplicate key */
#endif
    fi
  }
  if
  :: verdict == rollback -> goto tell
  :: else -> skip
  fi;

  /* The callback: it fails, or the connection dies with the process, or it comes to its end. */
  if
  :: atomic { crashes > 0 -> crashes--; releaseLock() }; goto dead
  :: atomic { releaseLock() }; verdict = rollback; goto tell
  :: true -> skip
  fi;

  /* COMMIT. */
  if
  :: atomic { commitLocally() }; verdict = commit
  :: atomic { losses > 0 -> losses--; commitLocally() }; verdict = unknown /* its answer was lost */
  :: atomic { losses > 0 -> losses--; releaseLock() }; verdict = unknown   /* it was lost itself */
  fi;
  mayCrash(dead);

tell:
  if
  :: verdict == unknown ->
#ifdef ROLLS_BACK_AMBIGUOUS
     outcome = rollback
#else
     /* Exactly what a check does, or silence. */
     if
     :: atomic { decideOutcome(outcome) }
     :: outcome = unknown
     fi
#endif
  :: else -> outcome = verdict
  fi;
  mayCrash(dead);
  /* The verdict: lost, or on its way once or more often. Rolled back is certain wherever it is said. */
  if
  :: outcome == commit -> select(copies : 0 .. COPIES); commits = commits + copies
  :: outcome == rollback -> select(copies : 0 .. COPIES); rollbacks = rollbacks + copies
  :: else -> skip
  fi;
dead:
  skip
}

/* Verdicts that arrive, in any order and at any time; one more prepare, late. */
proctype Network() {
  bool latePrepare = true;
end:
  do
  :: atomic { commits > 0 -> commits--; storeCommit() }
  :: atomic { rollbacks > 0 -> rollbacks--; storeRollback() }
  :: atomic { latePrepare && wasPrepared -> latePrepare = false; insertPrepared() }
  od
}

/* ---- the broker: broker/src/engine/checker.ts and forwarder.ts */

inline publish() {
  assert(localCommitted && decision == commit); /* never forwarded unless committed */
  queue++
}

proctype Broker() {
  mtype:decision answer;

again:
  answer = undecided;
end:
  if
  :: state == prepared -> goto check
  :: atomic { state == committed -> publishing++ }; goto forward
  fi;

check:
  mayCrash(again);
  if
  :: atomic { decideOutcome(answer) }
  :: loss -> goto again /* the question was lost: no answer, nothing spent */
  fi;
  if
  :: loss -> goto again            /* the answer was lost, and what it decided stands */
  :: true
  fi;
  mayCrash(again);
  atomic {
    if
    :: answer == commit -> storeCommit()
    :: answer == rollback -> storeRollback()
    :: answer == unknown -> storeUnknown()
    fi
  }
  goto again;

forward:
  mayCrash(letGo);
#ifdef MARKS_FIRST
  atomic { storeForwarded() }
  mayCrash(letGo);
#endif
  if
  :: atomic { publish() }
  :: loss -> goto letGo /* it never arrived */
  fi;
  if
  :: loss -> goto letGo /* it arrived, and the confirm did not */
  :: crash -> goto letGo
  :: true
  fi;
#ifndef MARKS_FIRST
  /* Confirmed, and not returned. */
  atomic { storeForwarded() }
#endif
letGo:
  atomic { publishing--; goto again }
}

/* What is parked raises an alert; an operator has it checked again. */
proctype Operator() {
end:
  do
  :: atomic { state == parked && !barrierIsOld -> state = prepared; unknownAnswers = 0 }
  od
}

/* ---- the consumer: consumer-sdk, `once` and the acknowledgement outside of it */

/* The row and the work are one transaction of the consumer's database. */
inline apply() {
  if
#ifndef NO_DEDUPE
  :: consumedRow -> skip
#endif
  :: else ->
     assert(localCommitted); /* no phantom */
     consumedRow = true;
     applied++;
     assert(applied <= 1)    /* applied at most once */
  fi
}

proctype Consumer() {
again:
end:
  queue > 0; /* delivered, and in the queue until it is acknowledged */
  mayCrash(again);
#ifdef ACKNOWLEDGES_FIRST
  queue--;
  mayCrash(again);
  atomic { apply() }
#else
  atomic { apply() }
  if
  :: loss -> goto again /* the acknowledgement was lost: it comes again */
  :: crash -> goto again
  :: true
  fi;
  queue--;
#endif
  goto again
}

/* ---- retention: what is old goes, and is refused from then on */

proctype Retention() {
end:
  do
  /* Finished rows leave a tombstone. */
  :: atomic { state == forwarded || state == rolledBack -> state = tombstone }

  /* The producer's clock: from now on nobody inserts into the barrier, and its row may go. */
  :: atomic { !barrierIsOld -> barrierIsOld = true }
#ifdef PURGES_BARRIER_EARLY
  :: atomic { barrier == rowCommit -> barrier = noRow }
#else
  :: atomic { barrierIsOld && barrier != locked && barrier != noRow -> barrier = noRow }
#endif

  /*
   * The id's own time: a prepare is refused, so the tombstone may go, and the last repeat has come
   * long before. That nothing is published for longer than that is an assumption, which the README
   * tells: a publish that was begun has ended, and the queue was emptied.
   */
  :: atomic { state == tombstone && barrierIsOld && publishing == 0 && queue == 0 && !idIsOld ->
       idIsOld = true }
  :: atomic { idIsOld && state == tombstone -> state = absent }
#ifdef PURGES_CONSUMED_EARLY
  :: atomic { consumedRow -> consumedRow = false }
#else
  :: atomic { idIsOld && consumedRow -> consumedRow = false }
#endif
  od
}

init {
  atomic {
    byte broker;
    run Producer();
    run Network();
    for (broker : 1 .. BROKERS) { run Broker() }
    run Operator();
    run Consumer();
#ifdef RETENTION
    run Retention()
#endif
  }
}

/* ---- progress, with weak fairness: when the faults have stopped, these come */

ltl applied_in_the_end { [] (localCommitted -> <> (applied > 0)) }
ltl decided_in_the_end { [] (state == prepared -> <> (state != prepared)) }
ltl applied_or_parked { [] (localCommitted -> <> (applied > 0 || state == parked)) }
