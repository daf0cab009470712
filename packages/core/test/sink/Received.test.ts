/** Envelopes back in the types of declared tables: whatever JSON could not hold comes back as it was. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Begin, Change } from "../../src/change/Change.ts"
import * as Envelope from "../../src/sink/Envelope.ts"
import { MessageReader } from "../../src/sink/MessageReader.ts"
import * as Received from "../../src/sink/Received.ts"
import * as Route from "../../src/sink/Route.ts"
import * as Table from "../../src/table/Table.ts"
import { Transactions } from "../handling/delivering.ts"
import * as shop from "../table/shop.ts"

const Facts = Table.make(
  "public.facts",
  Schema.Struct({
    id: Schema.BigInt,
    ratio: Schema.Number,
    digest: Schema.Uint8Array,
    counts: Schema.Array(Schema.NullOr(Schema.BigInt)),
    note: Schema.NullOr(Schema.String),
    madeAt: Schema.DateFromString,
    data: Schema.Unknown
  }),
  { key: ["id"], columns: { madeAt: "made_at" } }
)
const facts = shop.relation("public", "facts", ["id", "ratio", "digest", "counts", "note", "made_at", "data"])

/** As the decoders of a plugin give it. */
const row = {
  id: 9_007_199_254_740_993n,
  ratio: Number.NaN,
  digest: new Uint8Array([0, 255]),
  counts: [1n, null],
  note: null,
  made_at: "2026-01-01T00:00:00.000Z",
  data: { a: [1, null] }
}

type Made = (begin: Begin, ordinal: number) => Change

const messages = (...changes: ReadonlyArray<Made>) =>
  new MessageReader({
    source: { system: undefined, slot: "s" },
    route: Route.one("all"),
    encode: Envelope.encode,
    tombstones: true,
    ends: true,
    holds: () => false
  }).read(new Transactions().of(...changes)).messages

const insert = (begin: Begin, ordinal: number): Change => ({ ...shop.insert(facts, row), begin, ordinal })

const decode = Received.decoder([Facts])

const received = (...changes: ReadonlyArray<Made>) =>
  messages(...changes).map(({ id, value }) => Result.getOrThrow(decode(id, value)))

describe("Received.decoder", () => {
  it("gives the row that the stream would have given", () => {
    const [inserted, end] = received(insert)
    assert.deepInclude(inserted, { _tag: "Insert", table: "public.facts", id: "0000000000000100-00000000" })
    if (inserted?._tag !== "Insert") throw new Error("no insert")
    const { madeAt, ...rest } = inserted.row
    const { made_at: _, ...sent } = row
    assert.deepStrictEqual(rest, sent)
    assert.strictEqual(madeAt.getTime(), Date.UTC(2026, 0, 1))
    assert.isTrue(inserted.source.last)
    assert.isUndefined(end, "the end of a transaction is of no table")
  })

  it("tells what an update left alone, and does not make a null of it", () => {
    const { note: _, ...sent } = row
    const [updated] = received((begin, ordinal) => ({
      ...shop.update(facts, sent, ["note"], undefined),
      begin,
      ordinal
    }))
    if (updated?._tag !== "Update" || updated.isComplete) throw new Error("no partial update")
    assert.deepStrictEqual(updated.unchanged, ["note"])
    assert.notProperty(updated.row, "note")
  })

  it("gives the declared key of what is gone, and nothing of its tombstone", () => {
    const [deleted, tombstone] = received((begin, ordinal) => ({
      _tag: "Delete",
      relation: facts,
      old: { _tag: "Key", row: { id: 7n } },
      begin,
      ordinal
    }))
    assert.deepInclude(deleted, { _tag: "Delete", key: { id: 7n } })
    assert.isUndefined(tombstone)
  })

  it("says where a row does not fit, and nothing of its values", () => {
    const [message] = messages((begin, ordinal) => ({
      ...shop.insert(facts, { ...row, ratio: "secret" }),
      begin,
      ordinal
    }))
    const error = Result.getOrThrow(Result.flip(decode(message!.id, message!.value)))
    assert.strictEqual(error.message, `the message ${message!.id} of public.facts does not fit: ratio: expected number`)
  })

  it("refuses what is no envelope of ours", () => {
    for (const text of ["", "[]", "null", '{"op":1}', '{"op":"c"}'])
      assert.isTrue(Result.isFailure(decode("1-1", text)), text)
  })
})
