/** The stream that tells which rows are gone: heard as any other, and never acknowledged. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Relation } from "../../src/change/Relation.ts"
import { CopyRetry } from "../../src/copying/CopyRetry.ts"
import { type DeletedRowsOptions, handOverDeletedRows } from "../../src/copying/DeletedRows.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import type { SnapshotResumed, SnapshotRowDeleted } from "../../src/snapshot/SnapshotChange.ts"
import * as TransactionSnapshot from "../../src/snapshot/TransactionSnapshot.ts"
import * as FakeWalSender from "../support/FakeWalSender.ts"

const relation: Relation = { oid: 16_385, schema: "public", name: "orders", replicaIdentity: "default", columns: [] }
const resumed: SnapshotResumed = {
  _tag: "SnapshotResumed",
  attempt: 2,
  consistentPoint: Lsn.zero,
  tables: [],
  unpublished: [],
  checkpoint: ""
}

const options: DeletedRowsOptions = {
  slot: "orders",
  plugin: Pgoutput.make({ publications: ["orders"], streaming: "on", twoPhase: true }),
  keeper: {
    serverVersion: 180_004,
    slices: portableText,
    query: () => Effect.succeed([]),
    copyBoth: () => Effect.die("the keeper streams nothing")
  },
  tables: new Map([[relation.oid, { relation, deletedUpTo: TransactionSnapshot.fromString("5:5:")! }]]),
  resumed,
  seam: FakeWalSender.lsn("0/9000"),
  snapshot: TransactionSnapshot.fromString("100:100:")!
}

/** A transaction that deletes one row. */
const deletion = (at: string, end: string, id: number) =>
  FakeWalSender.concat(
    FakeWalSender.begin(at),
    FakeWalSender.relation(),
    FakeWalSender.xLogData(at, Bytes.remove(relation.oid, Bytes.tuple("K", [String(id)]))),
    FakeWalSender.commit(at, end)
  )

/** What is handed over, over however many attempts a copy makes of it. */
const start = Effect.fnUntraced(function* (walSender: FakeWalSender.FakeWalSender) {
  const rows: Array<SnapshotRowDeleted> = []
  const failures: Array<string> = []
  const retry = new CopyRetry()
  const fiber = yield* handOverDeletedRows(options, (more) => Effect.sync(() => rows.push(...more))).pipe(
    Effect.tapError((error) => Effect.sync(() => failures.push(error._tag))),
    Effect.retry({ while: (error) => retry.next(error) }),
    Effect.provide(walSender.layer),
    Effect.forkChild
  )
  return { fiber, rows, failures }
})

const nothingConfirmed = (walSender: FakeWalSender.FakeWalSender) => {
  for (const { statuses } of walSender.connections) {
    assert.isAbove(statuses.length, 0)
    for (const { applied, flushed } of statuses) assert.deepStrictEqual([flushed, applied], [Lsn.zero, Lsn.zero])
  }
}

describe("the rows that are gone", () => {
  it.effect("come from a stream that ends at the seam, in good order, with nothing confirmed", () =>
    Effect.gen(function* () {
      const walSender = yield* FakeWalSender.make()
      const { fiber, rows } = yield* start(walSender)
      const connection = yield* walSender.accept
      assert.include(connection.commands.at(-1)!, "0/0")
      assert.notInclude(connection.commands.at(-1)!, "streaming")
      assert.notInclude(connection.commands.at(-1)!, "two_phase")
      yield* connection.say(deletion("0/2000", "0/2100", 1), FakeWalSender.keepAlive("0/8000", true))
      yield* TestClock.adjust(60_000)
      assert.isUndefined(fiber.pollUnsafe(), "the seam has not come")
      // An idle position within a transaction is not its end.
      yield* connection.say(FakeWalSender.begin("0/9500"), FakeWalSender.keepAlive("0/9400"))
      yield* TestClock.adjust(1000)
      assert.isUndefined(fiber.pollUnsafe(), "a transaction is open")
      yield* connection.say(FakeWalSender.commit("0/9500", "0/9600"))
      yield* TestClock.adjust(1000)
      yield* Fiber.join(fiber)
      assert.lengthOf(rows, 1)
      assert.isTrue(connection.isDone)
      assert.isTrue(connection.isClosed)
      assert.isAbove(connection.statuses.length, 5, "it was told all along that we live")
      nothingConfirmed(walSender)
    })
  )

  it.effect("[N3] are asked for again where the connection has gone silent, and nothing is ever confirmed", () =>
    Effect.gen(function* () {
      const walSender = yield* FakeWalSender.make((attempt) => ({ isDeaf: attempt === 0 }))
      const { failures, fiber, rows } = yield* start(walSender)
      const first = yield* walSender.accept
      yield* first.say(deletion("0/2000", "0/2100", 1), FakeWalSender.keepAlive("0/8000"))
      let waited = 0
      while (!first.isClosed && waited < 120_000) {
        yield* TestClock.adjust(100)
        waited += 100
      }
      assert.isAtMost(waited, 31_000)
      assert.deepStrictEqual(failures, ["WalReceiverTimeout"])
      const second = yield* walSender.accept
      yield* second.say(deletion("0/2000", "0/2100", 1), FakeWalSender.keepAlive("0/9000"))
      yield* TestClock.adjust(1000)
      yield* Fiber.join(fiber)
      assert.lengthOf(rows, 2)
      nothingConfirmed(walSender)
    })
  )
})
