/** Copying over connections that are played here, on a clock that is the test's. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Queue, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { type CopyJob, copyTables, describeTables } from "../../src/copying/CopyTables.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { encodeFrame } from "../../src/protocol/Frames.ts"
import type { CopyBoth, ReplicantConnection } from "../../src/server/WalSender.ts"
import { copyPieces } from "../../src/snapshot/CopyCommand.ts"
import type { CopyProgress } from "../../src/snapshot/CopyProgress.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"
import type { SnapshotChange, SnapshotStarted } from "../../src/snapshot/SnapshotChange.ts"
import { SnapshotDecoder } from "../../src/snapshot/SnapshotDecoder.ts"

const published = (oid: number, name: string, pages: number, estimatedRows: number | null): PublishedTable => ({
  oid,
  schema: "public",
  name,
  replicaIdentity: "d",
  keyLength: 1,
  columns: [{ name: "id", isKey: true, typeOid: 23, typeModifier: -1, type: null }],
  columnLists: 1,
  filters: [null],
  parts: [
    {
      ...{ oid: oid + 1, schema: "public", name, fileNode: oid, pages, estimatedRows },
      ...{ isHeap: true, isReadable: true, hasRowSecurity: false }
    }
  ],
  ancestors: []
})

const encode = (text: string) => new TextEncoder().encode(text)

/** One read that holds the whole answer to a copy of so many rows. */
const answer = (rows: number): Uint8Array =>
  Buffer.concat([
    encodeFrame(0x48, new Uint8Array([0, 0, 1, 0, 0])),
    ...Array.from({ length: rows }, (_, index) => BackendMessage.copyData(encode(`${index}\n`))),
    BackendMessage.copyDone,
    BackendMessage.commandComplete(`COPY ${rows}`),
    encodeFrame(BackendMessage.readyForQueryTag, encode("T"))
  ])

/** A connection that answers each copy with what `respond` gives for its command; nothing until then. */
const connect = (respond: (command: string) => Effect.Effect<Uint8Array>): ReplicantConnection => {
  let asked = ""
  const copy: CopyBoth = {
    pull: Effect.suspend(() => respond(asked)),
    send: (bytes) =>
      Effect.sync(() => {
        asked = new TextDecoder().decode(bytes.subarray(5, -1))
      })
  }
  return {
    serverVersion: 180_000,
    query: () => Effect.succeed([]),
    copyBoth: (command) =>
      Effect.sync(() => {
        asked = command
        return copy
      }),
    slices: portableText
  }
}

const seconds = (duration: Duration.Duration | undefined) => Duration.toSeconds(duration ?? Duration.infinity)

const snapshot: SnapshotStarted = { _tag: "SnapshotStarted", attempt: 1, consistentPoint: Lsn.zero, tables: [] }

const makeJob = Effect.fnUntraced(function* (tables: ReadonlyArray<PublishedTable>) {
  const decoder = new SnapshotDecoder(Pgoutput.make({ publications: ["p"] }), portableText)
  const seen: Array<SnapshotChange | string> = []
  const progress = yield* SubscriptionRef.make<CopyProgress>({ attempt: 1, isCompleted: false, tables: [] })
  const job: CopyJob = {
    snapshot,
    tables: yield* describeTables(tables, decoder, (table) => copyPieces(table)),
    decoder,
    handOver: (changes) => Effect.sync(() => void seen.push(...changes)),
    onPiece: ({ index, part }) => Effect.sync(() => void seen.push(`${part}/${index}`)),
    tellProgress: (change) => SubscriptionRef.update(progress, change)
  }
  return { job, seen, progress }
})

const rowsIn = (command: string): number => (command.includes("false") ? 0 : command.includes(`"small"`) ? 2 : 10_000)
const atOnce = connect((command) => Effect.succeed(answer(rowsIn(command))))

const summary = (seen: ReadonlyArray<SnapshotChange | string>) =>
  seen.map((each) => (typeof each === "string" ? each : each._tag)).filter((each) => each !== "SnapshotRow")

describe("copying tables", () => {
  it.effect("tells of each piece behind its rows, and of a table behind its pieces", () =>
    Effect.gen(function* () {
      const { job, seen } = yield* makeJob([published(10, "big", 5000, null), published(20, "small", 1, 2)])
      yield* copyTables(job, [atOnce])
      assert.deepStrictEqual(summary(seen), [
        "11/0",
        "11/1",
        "SnapshotTableCompleted",
        "21/0",
        "SnapshotTableCompleted"
      ])
      assert.strictEqual(seen.indexOf("11/0"), 10_000)
      assert.strictEqual(seen.indexOf("11/1"), 20_001)
    })
  )

  it.effect("keeps to its rate over all connections, and tells how long it will take", () =>
    Effect.gen(function* () {
      const { job, progress, seen } = yield* makeJob([
        published(10, "big", 5000, 20_000),
        published(20, "other", 1, 10_000)
      ])
      const fiber = yield* copyTables({ ...job, rateLimit: { rows: 500 } }, [atOnce, atOnce]).pipe(
        Effect.forkChild({ startImmediately: true })
      )
      for (let second = 1; second <= 30; second++) {
        yield* TestClock.adjust("1 second")
        assert.approximately(seen.length, 500 * second, 150)
      }
      const { remaining, rowsPerSecond, tables } = yield* SubscriptionRef.get(progress)
      assert.approximately(rowsPerSecond ?? 0, 500, 25)
      assert.approximately(seconds(remaining), 30, 3)
      assert.approximately(tables[0]!.rows + tables[1]!.rows, 15_000, 150)
      assert.isBelow(seconds(tables[0]!.remaining), 30)
      yield* TestClock.adjust("31 seconds")
      yield* Fiber.join(fiber)
      const done = yield* SubscriptionRef.get(progress)
      assert.deepStrictEqual(
        done.tables.map(({ isDone, rows }) => [rows, isDone]),
        [
          [20_000, true],
          [10_000, true]
        ]
      )
      assert.strictEqual(seconds(done.remaining), 0)
    })
  )

  it.effect("tells that the rows have stopped, while they have", () =>
    Effect.gen(function* () {
      const { job, progress } = yield* makeJob([published(10, "big", 5000, 40_000)])
      const more = yield* Queue.unbounded<number>()
      const haltingly = connect((command) => Effect.map(Queue.take(more), () => answer(rowsIn(command))))
      const fiber = yield* copyTables(job, [haltingly]).pipe(Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust("1 second")
      yield* Queue.offer(more, 1)
      yield* TestClock.adjust("1 second")
      const before = yield* SubscriptionRef.get(progress)
      assert.approximately(before.rowsPerSecond ?? 0, 5000, 1000)
      yield* TestClock.adjust("1 minute")
      const after = yield* SubscriptionRef.get(progress)
      assert.isBelow(after.rowsPerSecond ?? 10_000, 1)
      assert.strictEqual(after.tables[0]?.rows, 10_000)
      yield* Fiber.interrupt(fiber)
    })
  )
})
