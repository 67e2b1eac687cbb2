/*
 * Eight mistakes that have lost somebody's messages, each made in the real code by changing as little
 * as it takes. `edits` are texts that must be there exactly once, so that a sabotage which no longer
 * fits the code says so; `tests` are the files of the suite that must notice.
 */
export const SABOTAGES = [
  {
    name: 'looks instead of deciding',
    why: 'the check finds no row while the local transaction is open, and says rollback',
    edits: [
      {
        file: 'producer-sdk/src/local/decide-outcome.ts',
        from: 'await inSession(question, (executor) => row.insertRollback({ executor, dialect }, id));\n    return',
        to: 'const seen = await inSession(question, (executor) => row.read({ executor, dialect }, id));\n    if (seen !== undefined) return seen;\n    return',
      },
    ],
    tests: ['test/system/producer-check.test.ts', 'test/system/producer-sqlite.test.ts'],
  },
  {
    name: 'rolls back after an ambiguous COMMIT',
    why: 'an error of COMMIT is taken for a rollback, and COMMIT had succeeded',
    edits: [
      {
        file: 'producer-sdk/src/local/transaction.ts',
        from: "    const outcome = await messages.decide(database, limits.settleTimeoutMs);\n    if (outcome.decision === 'unknown') return unknown(run, outcome.reason, error);\n    if (outcome.decision === 'rollback') {\n      await messages.drop();\n      throw error;\n    }\n    value = run.progress.value;",
        to: '    await messages.drop();\n    throw error;',
      },
    ],
    tests: ['test/system/producer-ambiguous-commit.test.ts'],
  },
  {
    name: 'unguarded updates',
    why: 'a verdict overwrites a decision that was made before',
    edits: [
      {
        file: 'broker/src/store/verdict-operations.ts',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text of a source file
        from: "where ${where} and decision = 'none' and state in ('prepared', 'parked')`;",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text of a source file
        to: 'where ${where}`;',
      },
    ],
    tests: ['test/contract/sqlite.test.ts'],
  },
  {
    name: '`forwarded` before the confirm',
    why: 'a crash between the mark and the publish loses the message',
    edits: [
      {
        file: 'broker/src/engine/forward-round.ts',
        from: "const UNANSWERED: PublishOutcome = { kind: 'unconfirmed', detail: 'there is no outcome yet' };",
        to: "const UNANSWERED: PublishOutcome = { kind: 'confirmed' };",
      },
      {
        file: 'broker/src/engine/forwarder.ts',
        from: 'let unanswered = round.length;',
        to: 'let unanswered = 0;',
      },
    ],
    tests: ['test/unit/engine-forwarder.test.ts'],
  },
  {
    name: 'ignores returned messages',
    why: 'RabbitMQ returns what it can not route and then confirms it all the same',
    edits: [
      {
        file: 'broker/src/rabbit/publishing.ts',
        from: 'entry.returned !== undefined',
        to: 'false',
      },
    ],
    tests: ['test/system/rabbit-publishing.test.ts'],
  },
  {
    name: 'acknowledges inside the transaction',
    why: 'the message is gone from its queue before the work is durable',
    edits: [
      {
        file: 'consumer-sdk/src/delivery/consume-one.ts',
        from: '  callHandler({\n',
        to: '  settleConsumed(delivery, envelope, context);\n  callHandler({\n',
      },
      {
        file: 'consumer-sdk/src/delivery/consume-one.ts',
        from: "      if ('error' in end) {\n        void settleFailed(delivery, failureOf(end.error, envelope, context), context);\n      } else settleConsumed(delivery, envelope, context);\n",
        to: "      if ('error' in end) context.log({ event: 'unblocked', connection: 'consuming' });\n",
      },
    ],
    tests: ['test/long/consumer-retry-later.test.ts'],
  },
  {
    name: 'purges too early',
    why: 'retention takes what is not finished for long enough',
    edits: [
      {
        file: 'broker/src/store/retention-operations.ts',
        from: "state in ('forwarded', 'rolledBack') and finished_at <=",
        to: 'prepared_at <=',
      },
    ],
    tests: ['test/contract/sqlite.test.ts'],
  },
  {
    name: 'gives up into rollback',
    why: 'checks that said "unknown" often enough roll back what may have committed',
    edits: [
      {
        file: 'broker/src/domain/decide.ts',
        from: "  if (checks >= policy.unknownMax) {\n    return move({ state: 'parked', reason: 'unresolved', parkedAt: now });",
        to: "  if (checks >= policy.unknownMax) {\n    return move({ state: 'rolledBack', decidedAt: now });",
      },
    ],
    tests: ['test/unit/domain-decide.test.ts', 'test/unit/engine-checker.test.ts'],
  },
];
