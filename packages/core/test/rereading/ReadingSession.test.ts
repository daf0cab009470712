import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Row } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { encodeFrame } from "../../src/protocol/Frames.ts"
import { type CopyOptions, ReadingSession } from "../../src/rereading/ReadingSession.ts"
import type { ReplicantConnection } from "../../src/server/WalSender.ts"
import { SnapshotDecoder } from "../../src/snapshot/SnapshotDecoder.ts"
import { table } from "../support/PublishedTable.ts"

const text = (value: string) => new TextEncoder().encode(value)
const ready = encodeFrame(BackendMessage.readyForQueryTag, text("T"))
const copyOut = encodeFrame(0x48, new Uint8Array([0, 0, 1, 0, 0]))
const rows = (count: number) => Array.from({ length: count }, (_, id) => BackendMessage.copyData(text(`${id}\n`)))
const copied = (count: number, told = count) => [
  copyOut,
  ...rows(count),
  BackendMessage.copyDone,
  BackendMessage.commandComplete(`COPY ${told}`),
  ready
]
const notice = BackendMessage.noticeResponse({ severity: "NOTICE", sqlState: "00000", message: "hello" })
const bytesOf = (frames: ReadonlyArray<Uint8Array>) => Uint8Array.from(frames.flatMap((frame) => [...frame]))

/** One row, of one column. */
const answered = (column: string, value: string) => [
  encodeFrame(0x54, Uint8Array.from([0, 1, ...text(column), 0, ...new Array(18).fill(0)])),
  encodeFrame(0x44, Uint8Array.from([0, 1, 0, 0, 0, value.length, ...text(value)])),
  BackendMessage.commandComplete("SELECT 1"),
  ready
]

/** A session whose server says these, one to a question, in reads of so many bytes. */
const make = (answers: ReadonlyArray<Uint8Array>, size = 1 << 20) => {
  let asked = -1
  let at = 0
  const ask = Effect.sync(() => {
    asked += 1
    at = 0
  })
  const pull = Effect.sync(() => {
    at += size
    return answers[asked]!.slice(at - size, at)
  })
  const connection: ReplicantConnection = {
    serverVersion: 180_004,
    slices: portableText,
    query: () => Effect.die("it is taken over"),
    copyBoth: () => Effect.as(ask, { pull, send: () => ask })
  }
  return new ReadingSession(connection)
}

const decoder = new SnapshotDecoder(Pgoutput.make({ publications: ["p"] }), portableText)
const relation = decoder.describe(
  table({ columns: [{ name: "id", isKey: true, typeOid: 23, typeModifier: -1, type: null }] })
)

const options = (seen: Array<Row>, overrides: Partial<CopyOptions> = {}): CopyOptions => ({
  command: "COPY (SELECT id FROM t) TO STDOUT",
  relation,
  decoder,
  portion: 1 << 20,
  take: (taken) => {
    seen.push(...taken)
    return true
  },
  ...overrides
})

describe("a session that is asked and copied from by turns", () => {
  it.effect("gives the answers to its queries and the rows of its copies, in reads of any size", () =>
    Effect.gen(function* () {
      // A notice may begin in one read with the end of a copy, and end in the next answer.
      for (const [size, cut] of [
        [1, 0],
        [5, 0],
        [64, 0],
        [1 << 20, 9]
      ] as const) {
        const answers = [
          answered("a", "x"),
          [...copied(3), notice.slice(0, cut)],
          [notice.slice(cut), ...answered("b", "y")],
          copied(0)
        ]
        const session = make(answers.map(bytesOf), size)
        const seen: Array<Row> = []
        assert.deepStrictEqual(yield* session.query("SELECT a"), [{ a: "x" }])
        assert.isTrue(yield* session.copy(options(seen)))
        assert.deepStrictEqual(yield* session.query("SELECT b"), [{ b: "y" }])
        assert.isTrue(yield* session.copy(options(seen)))
        assert.deepStrictEqual(seen, [{ id: 0 }, { id: 1 }, { id: 2 }])
      }
    })
  )

  it.effect("hands over no more at a time than was asked for, and stops when nothing more is wanted", () =>
    Effect.gen(function* () {
      const session = make([bytesOf(copied(1000))])
      const seen: Array<number> = []
      const take = (taken: ReadonlyArray<Row>) => {
        seen.push(taken.length)
        return seen.length < 3
      }
      assert.isFalse(yield* session.copy(options([], { portion: 4, take })))
      assert.deepStrictEqual(seen, [2, 2, 2])
    })
  )

  it.effect("[P3] fails where the count is another, and where a query answers as a copy does", () =>
    Effect.gen(function* () {
      const short = yield* Effect.flip(make([bytesOf(copied(2, 3))]).copy(options([])))
      assert.strictEqual(short._tag, "DecodeError")
      assert.include(short.message, "a copy of 3 rows, of which 2 came")
      const cut = [copyOut, ...rows(2), BackendMessage.commandComplete("COPY 2"), ready]
      assert.strictEqual((yield* Effect.flip(make([bytesOf(cut)]).copy(options([]))))._tag, "DecodeError")
      assert.strictEqual((yield* Effect.flip(make([bytesOf(copied(2))]).query("SELECT")))._tag, "DecodeError")
    })
  )

  it.effect("fails as the server does; of a copy, with what may quote values left out", () =>
    Effect.gen(function* () {
      const error = BackendMessage.errorResponse({ severity: "ERROR", sqlState: "22012", message: "canary" })
      const ofCopy = yield* Effect.flip(make([bytesOf([copyOut, ...rows(1), error, ready])]).copy(options([])))
      assert.strictEqual(ofCopy._tag, "ServerError")
      assert.notInclude(ofCopy.message, "canary")
      const ofQuery = yield* Effect.flip(make([bytesOf([error, ready])]).query("SELECT 1 / 0"))
      assert.include(ofQuery.message, "canary")
    })
  )
})
