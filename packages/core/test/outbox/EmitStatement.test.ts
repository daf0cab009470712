import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { statement } from "../../src/outbox/EmitStatement.ts"
import { UnencodableMessage } from "../../src/outbox/MessageError.ts"
import { OrderPlaced, placed, placedJson } from "./events.ts"

describe("statement", () => {
  it("is transactional unless told otherwise, and sends prefix and content as text", () => {
    assert.deepStrictEqual(Result.getOrThrow(statement(OrderPlaced)(placed)), {
      sql: "SELECT pg_logical_emit_message(true, $1::text, $2::text)::text",
      params: ["orders.placed", placedJson]
    })
    const { sql } = Result.getOrThrow(statement(OrderPlaced, { transactional: false })(placed))
    assert.strictEqual(sql, "SELECT pg_logical_emit_message(false, $1::text, $2::text)::text")
  })

  it("is none for a value that does not encode, and the error holds no value", () => {
    const result = statement(OrderPlaced)({ ...placed, tags: [{ s3cret: true } as never] })
    assert.deepStrictEqual(
      result,
      Result.fail(new UnencodableMessage({ prefix: "orders.placed", path: ".tags[0]", expected: "string" }))
    )
    const { failure } = result as Result.Failure<unknown, UnencodableMessage>
    assert.strictEqual(failure.message, 'the message "orders.placed" cannot be encoded at .tags[0]: expected string')
    assert.isFalse(failure.isRetryable)
  })

  it("does not compile with a value of another type", () => {
    const write = () => {
      // @ts-expect-error: an id is a bigint.
      statement(OrderPlaced)({ ...placed, id: 1 })
      // @ts-expect-error: it has tags.
      return statement(OrderPlaced)({ id: 1n, placedAt: new Date(0) })
    }
    assert.isFunction(write)
  })
})
