import { assert, describe, it } from "@effect/vitest"
import { type Change, type Handler, Lsn, Pgoutput } from "@replicant/core"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { TargetFailed } from "../../src/copy/CopyError.ts"
import { copyHandler } from "../../src/copy/CopyHandler.ts"
import { FollowedTables } from "../../src/copy/CoveredTables.ts"
import { tableKey } from "../../src/copy/TargetCatalog.ts"
import type { TargetSession } from "../../src/copy/TargetSession.ts"
import { TargetWriter } from "../../src/copy/TargetWriter.ts"
import { begin, commit, insert, snapshot, transaction } from "../support/Changes.ts"
import { column, table } from "./TargetTables.ts"

/** The first words of a statement tell which it is. */
const short = (text: string): string => text.split(" ").slice(0, 2).join(" ")

/** A target in memory: what is sent to it, one line a round trip, and the handler that sends. */
const makeTarget = (overrides: Partial<TargetSession> = {}) => {
  const sent: Array<string> = []
  const acknowledged: Array<string> = []
  const session: TargetSession = {
    serverVersion: 180_000,
    triggers: "quiet",
    query: (text) => Effect.sync(() => void sent.push(short(text))).pipe(Effect.as([])),
    batch: (steps) =>
      Effect.sync(() => {
        sent.push(steps.map(({ statement }) => short(statement.text)).join("; "))
        return steps.map(() => 1)
      }),
    copyIn: (command, rows) => Effect.sync(() => void sent.push(`${short(command)}: ${rows.length} bytes`)),
    ...overrides
  }
  const target = table({ name: "orders", columns: [column("id"), column("note")] })
  const covered = { schema: target.schema, name: target.name, state: "covered", entry: "", attached: [] } as const
  const writer = new TargetWriter({
    session,
    slot: "s",
    tables: new Map([[tableKey(target), target]]),
    totals: { rows: 0, changes: 0, transactions: 0, missing: 0 },
    committed: Lsn.zero,
    timeline: 1,
    followed: new FollowedTables(new Map([[tableKey(target), covered]]), { followsAll: false, mayEmpty: false })
  })
  const connection: Handler.Session<unknown> = {
    slot: "s",
    plugin: Pgoutput.make({ publications: ["p"] }),
    maxTransactionBytes: undefined,
    isOver: () => false,
    fail: () => Effect.void,
    durable: Effect.succeed(Lsn.zero),
    acknowledge: () => Effect.void,
    acknowledgeThrough: (unit) => Effect.sync(() => void acknowledged.push(Lsn.format(unit.lsn)))
  }
  const handler = copyHandler(writer, { origin: "unmarked", replicated: "apply" })
  /** One connection: what its reads bring, until it is lost. */
  const connect = (...reads: ReadonlyArray<ReadonlyArray<Change | ReturnType<typeof snapshot>[number]>>) =>
    Effect.scoped(
      Effect.flatMap(handler.make(connection), (consume) =>
        Effect.forEach(reads, (changes) => consume({ changes: changes as never, bytes: 0 }), { discard: true })
      )
    )
  return { sent, acknowledged, writer, connect }
}

const of = begin("0/90")
const inPart = [of, insert(of, 0, { id: "1", note: null })]

describe("the copy as a handler", () => {
  it.effect("undoes what a connection left in part, before the next brings it again", () =>
    Effect.gen(function* () {
      const { acknowledged, connect, sent, writer } = makeTarget()
      yield* connect(inPart)
      assert.deepStrictEqual(sent, ["BEGIN; INSERT INTO", "ROLLBACK"])
      assert.deepStrictEqual(acknowledged, [])
      assert.isTrue(writer.isIdle)
      yield* connect([...inPart, commit(of, "0/98")])
      assert.deepStrictEqual(sent.slice(2), ["BEGIN; INSERT INTO; UPDATE replicant.copy_position; COMMIT"])
      assert.deepStrictEqual(acknowledged, ["0/98"])
    })
  )

  it.effect("commits several transactions of one read as one, and leaves open what has not ended", () =>
    Effect.gen(function* () {
      const { acknowledged, connect, sent, writer } = makeTarget()
      const read = [...transaction("0/70", "0/78", 1), ...transaction("0/80", "0/88", 1), ...inPart]
      yield* connect(read, [commit(of, "0/98")])
      assert.deepStrictEqual(sent, [
        "BEGIN; INSERT INTO; INSERT INTO; UPDATE replicant.copy_position; COMMIT; BEGIN; INSERT INTO",
        "UPDATE replicant.copy_position; COMMIT"
      ])
      assert.deepStrictEqual(acknowledged, ["0/88", "0/98"])
      assert.isTrue(writer.isIdle)
    })
  )

  it.effect("passes over what it has committed, also over another connection", () =>
    Effect.gen(function* () {
      const { acknowledged, connect, sent } = makeTarget()
      yield* connect(transaction("0/90", "0/98", 1))
      yield* connect(transaction("0/90", "0/98", 1))
      assert.lengthOf(sent, 1)
      assert.deepStrictEqual(acknowledged, ["0/98", "0/98"])
    })
  )

  it.effect("undoes rows of an attempt that is over, which are nobody's before their mark", () =>
    Effect.gen(function* () {
      const { connect, sent } = makeTarget()
      const rows = Array.from({ length: 2 }, () => ({ id: "1", note: "x".repeat(600_000) }))
      const [started, ...others] = snapshot("0/90", rows)
      yield* connect([started!], others.slice(0, 2))
      const beginning = ["SELECT ARRAY[EXISTS", "BEGIN; UPDATE replicant.copy_position; COMMIT"]
      const copied = ["BEGIN", 'COPY "public"."orders": 1200006 bytes']
      assert.deepStrictEqual(sent, [...beginning, ...copied, "ROLLBACK"])
      yield* connect([started!], others)
      assert.deepStrictEqual(sent.slice(5), [...beginning, ...copied, "UPDATE replicant.copy_position; COMMIT"])
    })
  )

  it.effect("waits for 2 s and no longer until a target has undone it: its session orders what comes after", () =>
    Effect.gen(function* () {
      const { connect, writer } = makeTarget({ query: () => Effect.never })
      const fiber = yield* Effect.forkChild(connect(inPart), { startImmediately: true })
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(fiber)
      assert.isTrue(writer.isIdle)
    })
  )

  it.effect("asks nothing of a session that refused a statement, and uses it no more", () =>
    Effect.gen(function* () {
      const refused = new TargetFailed({ sqlState: "40P01" })
      const { connect, sent, writer } = makeTarget({ batch: () => Effect.fail(refused) })
      assert.strictEqual(yield* Effect.flip(connect(inPart)), refused)
      assert.deepStrictEqual(sent, [])
      assert.isFalse(writer.isIdle)
      assert.isTrue(Exit.hasDies(yield* Effect.exit(connect(inPart))))
    })
  )

  it.effect("is not idle while a transaction is open, whose part an idle position would become", () =>
    Effect.gen(function* () {
      const { sent, writer } = makeTarget()
      const scope = yield* Scope.make()
      yield* Scope.provide(writer.transaction, scope)
      writer.execute("SELECT 1")
      assert.isFalse(writer.isIdle, "put down")
      yield* writer.send()
      assert.isFalse(writer.isIdle, "sent")
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(writer.isIdle, "undone")
      assert.deepStrictEqual(sent, ["BEGIN; SELECT 1", "ROLLBACK"])
    })
  )
})
