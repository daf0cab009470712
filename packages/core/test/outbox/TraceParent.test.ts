import { assert, describe, it } from "@effect/vitest"
import * as TraceParent from "../../src/outbox/TraceParent.ts"

const traceId = "0af7651916cd43dd8448eb211c80319c"
const spanId = "b7ad6b7169203331"

describe("TraceParent", () => {
  it("reads what it writes", () => {
    for (const sampled of [true, false]) {
      const text = TraceParent.format({ traceId, spanId, sampled })
      assert.strictEqual(text, `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`)
      assert.deepStrictEqual(TraceParent.fromString(text!), { traceId, spanId, sampled })
    }
  })

  it("takes other flags, and fields that later versions append", () => {
    assert.isTrue(TraceParent.fromString(`00-${traceId}-${spanId}-03`)?.sampled)
    assert.isTrue(TraceParent.fromString(`01-${traceId}-${spanId}-01-more`)?.sampled)
  })

  it("is none for what W3C says to ignore", () => {
    const ignored = [
      "",
      `00-${traceId}-${spanId}`,
      `00-${traceId}-${spanId}-01-more`,
      `00-${traceId.toUpperCase()}-${spanId}-01`,
      `00-${"0".repeat(32)}-${spanId}-01`,
      `00-${traceId}-${"0".repeat(16)}-01`,
      `ff-${traceId}-${spanId}-01`,
      ` 00-${traceId}-${spanId}-01`
    ]
    for (const text of ignored) assert.isUndefined(TraceParent.fromString(text), text)
  })

  it("is none for a span whose identifiers are not W3C's", () => {
    assert.isUndefined(TraceParent.format({ traceId: "noop", spanId: "noop", sampled: false }))
  })
})
