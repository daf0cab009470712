import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import { changeId } from "../../src/change/ChangeId.ts"
import { MessageMismatch } from "../../src/outbox/MessageError.ts"
import { decoder, type OutboxChange } from "../../src/outbox/OutboxChanges.ts"
import { make } from "../../src/outbox/OutboxMessage.ts"
import type { TypedChange } from "../../src/table/TypedChange.ts"
import type { Orders } from "../table/shop.ts"
import { begin, commit, insert, order, orders } from "../table/shop.ts"
import { emitted, OrderCancelled, OrderPlaced, placed, placedJson, standalone, utf8 } from "./events.ts"

type Event = typeof OrderPlaced | typeof OrderCancelled
const events = [OrderPlaced, OrderCancelled]

/** Holds exactly when both are one type. */
type Same<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false
const same = <A, B>(proof: Same<A, B>): void => assert.isTrue(proof)
/** Its body is compiled and never run. */
const compiled = (_body: (change: OutboxChange<Event>) => unknown): void => undefined

describe("decoder", () => {
  it("decodes declared messages in their places, and passes everything else as it is", () => {
    const row = insert(orders, order)
    const other = emitted("others", "not even JSON")
    const message = emitted("orders.placed", placedJson)
    const decoded = Result.getOrThrow(decoder(events)([begin, row, message, other, commit]))
    const expected: ReadonlyArray<unknown> = [
      begin,
      row,
      { ...message, message: "orders.placed", value: placed },
      other,
      commit
    ]
    assert.deepStrictEqual<ReadonlyArray<unknown>>(decoded, expected)
    assert.strictEqual(decoded[1], row)
    assert.strictEqual(decoded[3], other)
  })

  it("leaves to each message what acknowledges and names it", () => {
    const given = [standalone("orders.cancelled", '{"id":"1"}'), standalone("others", "")]
    const decoded = Result.getOrThrow(decoder(events)(given))
    assert.deepStrictEqual(decoded.map(nextLsn), given.map(nextLsn))
    assert.isDefined(nextLsn(decoded[0]!))
    assert.deepStrictEqual(decoded.map(changeId), given.map(changeId))
  })

  it("fails with a message that does not fit, naming prefix, LSN and path, and no value", () => {
    const message = emitted("orders.placed", placedJson.replace('"tea"', "4711"))
    const result = decoder(events)([begin, message, commit])
    assert.deepStrictEqual(
      result,
      Result.fail(
        new MessageMismatch({ prefix: "orders.placed", lsn: message.lsn, path: ".tags[0]", expected: "string" })
      )
    )
    const { failure } = result as Result.Failure<unknown, MessageMismatch>
    assert.strictEqual(
      failure.message,
      'the message "orders.placed" does not fit its Schema at .tags[0]: expected string (LSN 0/120)'
    )
    assert.isFalse(failure.isRetryable)
  })

  it('hands it over under onMismatch: "untyped", with what acknowledges it', () => {
    const broken = standalone("orders.placed", "{")
    const decode = decoder(events, { onMismatch: "untyped" })
    const [first, second] = Result.getOrThrow(decode([broken, standalone("orders.cancelled", '{"id":"1"}')]))
    assert.isTrue(first?._tag === "Message" && first.message === undefined && first.mismatch !== undefined)
    assert.strictEqual(nextLsn(first!), broken.nextLsn)
    assert.isTrue(second?._tag === "Message" && second.message === "orders.cancelled" && second.value.id === 1n)
  })

  it("lends content out untouched", () => {
    const message = emitted("orders.placed", placedJson)
    decoder(events)([message])
    assert.deepStrictEqual(message.content, utf8(placedJson))
  })

  it("refuses two messages with one prefix", () => {
    assert.throws(() => decoder([OrderPlaced, make("orders.placed", Schema.String)]), /orders\.placed/)
  })
})

describe("OutboxChange", () => {
  it("tells each message's value by _tag and message", () => {
    compiled((change) => {
      if (change._tag === "Message" && change.message === "orders.placed") {
        same<typeof change.prefix, "orders.placed">(true)
        same<typeof change.value.id, bigint>(true)
        return change.value.placedAt.getTime()
      }
      if (change._tag === "Message" && change.message === "orders.cancelled") {
        // @ts-expect-error: only orders that are placed have tags.
        return change.value.tags
      }
      // @ts-expect-error: no value before it is known which message it is.
      return change._tag === "Message" && change.value
    })
  })

  it("does not compile with a message that is not of the set", () => {
    compiled((change) => {
      // @ts-expect-error: "orders.shipped" is not declared.
      return change._tag === "Message" && change.message === "orders.shipped"
    })
  })

  it("has no mismatch under fail", () => {
    compiled((change) => {
      if (change._tag !== "Message") return undefined
      return same<typeof change.mismatch, undefined>(true)
    })
  })

  it("keeps everything that a stream of typed tables has, but for its messages", () => {
    type Both = OutboxChange<Event, "fail", TypedChange<typeof Orders>>
    const proof = (change: Both) => {
      if (change._tag === "Insert" && change.table === "public.orders") same<typeof change.row.id, number>(true)
      return nextLsn(change)
    }
    assert.isFunction(proof)
    same<Exclude<OutboxChange<Event>, { _tag: "Message" }>, Exclude<Change, { _tag: "Message" }>>(true)
  })

  it("is declared by Schemas that need no services", () => {
    const declare = (schema: Schema.Codec<string, string, { readonly clock: true }>) => {
      // @ts-expect-error: messages are decoded where no service is.
      return make("p", schema)
    }
    assert.isFunction(declare)
  })
})
