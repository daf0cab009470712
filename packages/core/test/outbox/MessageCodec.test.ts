import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { codecOf, type Misfit } from "../../src/outbox/MessageCodec.ts"
import type { MessageSchema } from "../../src/outbox/OutboxMessage.ts"
import { OrderPlaced, placed, placedJson, utf8 } from "./events.ts"

const roundTrip = <S extends MessageSchema>(schema: S, value: S["Type"]): unknown => {
  const codec = codecOf(schema)
  return Result.getOrThrow(codec.decode(utf8(Result.getOrThrow(codec.encode(value)))))
}

const misfit = <A>(result: Result.Result<A, Misfit>): Misfit => {
  assert.isTrue(Result.isFailure(result))
  return (result as Result.Failure<A, Misfit>).failure
}

describe("codecOf", () => {
  it("writes ASCII whatever the value, so that no encoding of a database changes it", () => {
    assert.strictEqual(Result.getOrThrow(codecOf(OrderPlaced.schema).encode(placed)), placedJson)
    const all = Array.from({ length: 0x10000 }, (_, unit) => String.fromCharCode(unit)).join("")
    const json = Result.getOrThrow(codecOf(Schema.String).encode(all))
    assert.match(json, /^[\x20-\x7f]*$/)
    assert.strictEqual(JSON.parse(json), all)
  })

  it.prop("gives back any text", { text: Schema.String }, ({ text }) => {
    assert.strictEqual(roundTrip(Schema.String, text), text)
  })

  it("gives back what JSON has no word for: bigint, Date, bytes, Map, NaN and instances of a class", () => {
    class Event extends Schema.Class<Event>("Event")({
      id: Schema.BigInt,
      at: Schema.Date,
      bytes: Schema.Uint8Array,
      ratio: Schema.Number,
      counts: Schema.ReadonlyMap(Schema.String, Schema.Number),
      note: Schema.optional(Schema.String)
    }) {}
    const event = new Event({
      id: 1n,
      at: new Date(0),
      bytes: Uint8Array.of(0, 255),
      ratio: Number.NaN,
      counts: new Map([["é", 1]]),
      note: undefined
    })
    const back = roundTrip(Event, event)
    assert.instanceOf(back, Event)
    assert.deepStrictEqual(back, event)
    assert.isUndefined(roundTrip(Schema.Void, undefined))
  })

  it("reads JSON of other writers: in UTF-8, with white space and with properties of no interest", () => {
    const { decode } = codecOf(Schema.Struct({ name: Schema.String }))
    assert.deepStrictEqual(decode(utf8('{ "name": "é€𝄞", "more": [] }')), Result.succeed({ name: "é€𝄞" }))
  })

  it("says where a value does not fit and what would, and nothing of the value", () => {
    const schema = Schema.Struct({
      items: Schema.Array(Schema.Struct({ price: Schema.NumberFromString })),
      prices: Schema.Record(Schema.String, Schema.Number)
    })
    const { decode, encode } = codecOf(schema)
    const secret = "s3cret"
    const found = [
      misfit(encode({ items: [{ price: secret as never }], prices: {} })),
      misfit(encode({ items: [], prices: { [secret]: secret as never } })),
      misfit(encode(secret as never)),
      misfit(decode(utf8(`{"items":[{"price":{"${secret}":1}}],"prices":{}}`))),
      misfit(decode(utf8(`{"items":[],"prices":{"${secret}":"${secret}"}}`))),
      misfit(decode(utf8(`{"items":[{"price":"1"}],"${secret}`))),
      misfit(decode(Uint8Array.of(0x22, 0xe9, 0x22)))
    ]
    assert.deepStrictEqual(
      found.map(({ path }) => path),
      [".items[0].price", ".prices.*", "", ".items[0].price", ".prices.*", "", ""]
    )
    assert.notInclude(JSON.stringify(found), secret)
    assert.deepStrictEqual(
      found.slice(-2).map(({ expected }) => expected),
      ["JSON in UTF-8", "JSON in UTF-8"]
    )
  })

  it("throws nothing where a Schema does", () => {
    const throwing = Schema.String.check(
      Schema.makeFilter(() => {
        throw new Error("s3cret")
      })
    )
    const { decode, encode } = codecOf(throwing)
    for (const result of [encode("s3cret"), decode(utf8('"s3cret"'))]) {
      assert.notInclude(JSON.stringify(misfit<unknown>(result)), "s3cret")
    }
  })

  it("is compiled once per Schema", () => {
    assert.strictEqual(codecOf(OrderPlaced.schema), codecOf(OrderPlaced.schema))
  })
})
