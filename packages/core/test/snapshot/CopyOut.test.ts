import { assert, describe, it } from "@effect/vitest"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { encodeFrame } from "../../src/protocol/Frames.ts"
import { CopyOut } from "../../src/snapshot/CopyOut.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"
import { SnapshotDecoder } from "../../src/snapshot/SnapshotDecoder.ts"

const table: PublishedTable = {
  oid: 16384,
  schema: "public",
  name: "orders",
  replicaIdentity: "d",
  columns: [
    { name: "id", isKey: true, typeOid: 23, typeModifier: -1, type: null },
    { name: "note", isKey: false, typeOid: 25, typeModifier: -1, type: null }
  ],
  keyLength: 1,
  columnLists: 1,
  filters: [null],
  parts: [],
  ancestors: []
}

const text = (value: string) => new TextEncoder().encode(value)
const copyOutResponse = encodeFrame(0x48, new Uint8Array([0, 0, 2, 0, 0, 0, 0]))
const ready = (state: string) => encodeFrame(BackendMessage.readyForQueryTag, text(state))
const rows = (...lines: ReadonlyArray<string>) => lines.map((line) => BackendMessage.copyData(text(line)))
const complete = (count: number) => [
  BackendMessage.copyDone,
  BackendMessage.commandComplete(`COPY ${count}`),
  ready("T")
]

const join = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => Uint8Array.from(pieces.flatMap((piece) => [...piece]))

/** Decodes reads of so many bytes, to the end or the first failure. */
const read = (bytes: Uint8Array, size = bytes.length) => {
  const decoder = new SnapshotDecoder(Pgoutput.make({ publications: ["p"] }), portableText)
  const relation = decoder.describe(table)
  const out = new CopyOut(decoder, portableText)
  out.begin(relation)
  const seen: Array<unknown> = []
  for (let at = 0; at < bytes.length; at += size) {
    out.push(bytes.subarray(at, at + size))
    for (let next = "more"; next === "more"; ) {
      const result = out.decode()
      seen.push(...result.rows)
      if (result.failure !== undefined) return { seen, failure: result.failure, next: result.next }
      next = result.next
      if (next === "done") return { seen, failure: undefined, next }
    }
  }
  return { seen, failure: undefined, next: "due" }
}

const whole = join([copyOutResponse, ...rows("1\ta\n", "2\t\\N\n"), ...complete(2)])

describe("the answer to a COPY", () => {
  it("gives its rows, in reads of any size", () => {
    for (const size of [1, 2, 7, 64, whole.length]) {
      assert.deepStrictEqual(read(whole, size), {
        seen: [
          { id: 1, note: "a" },
          { id: 2, note: null }
        ],
        failure: undefined,
        next: "done"
      })
    }
  })

  it("gives many rows some at a time", () => {
    const lines = Array.from({ length: 3000 }, (_, index) => `${index}\tx\n`)
    const { next, seen } = read(join([copyOutResponse, ...rows(...lines), ...complete(3000)]))
    assert.strictEqual(next, "done")
    assert.strictEqual(seen.length, 3000)
    assert.deepStrictEqual(seen.at(-1), { id: 2999, note: "x" })
  })

  it("[P3] is never complete after a part of it", () => {
    for (let length = 0; length < whole.length; length++) {
      assert.strictEqual(read(whole.subarray(0, length)).next, "due", `after ${length} of ${whole.length} bytes`)
    }
  })

  it("[P3] fails when the server counts otherwise, or ends out of turn", () => {
    const wrong = [
      [copyOutResponse, ...rows("1\ta\n"), ...complete(2)],
      [copyOutResponse, ...rows("1\ta\n"), BackendMessage.commandComplete("COPY 1"), ready("T")],
      [copyOutResponse, ...rows("1\ta\n"), BackendMessage.copyDone, ready("T")],
      [copyOutResponse, BackendMessage.copyDone, BackendMessage.commandComplete("SELECT 0"), ready("T")],
      [copyOutResponse, BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0"), ready("I")],
      [...rows("1\ta\n")],
      [copyOutResponse, copyOutResponse],
      [encodeFrame(0x48, new Uint8Array([1, 0, 0]))],
      [BackendMessage.copyBothResponse]
    ]
    for (const frames of wrong) assert.strictEqual(read(join(frames)).failure?._tag, "DecodeError")
  })

  it("fails as the server does, with what may quote values left out", () => {
    const error = { severity: "ERROR", sqlState: "22012", message: "canary" }
    const { failure, seen } = read(
      join([copyOutResponse, ...rows("1\ta\n"), BackendMessage.errorResponse(error), ready("E")])
    )
    assert.deepStrictEqual(seen, [{ id: 1, note: "a" }])
    assert.strictEqual(failure?._tag, "ServerError")
    assert.notInclude(failure?.message ?? "", "canary")
  })

  it("names the table of a row whose bytes are no text, and what mends it", () => {
    const error = { severity: "ERROR", sqlState: "22021", message: "canary" }
    const { failure } = read(join([copyOutResponse, BackendMessage.errorResponse(error), ready("E")]))
    assert.include(failure?.message, 'in the rows of "public"."orders"')
    assert.match(failure?.remedy ?? "", /SQL_ASCII.*leave the column out of the publication/)
  })
})
