import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { Frames } from "../../src/protocol/Frames.ts"
import * as FrontendMessage from "../../src/protocol/FrontendMessage.ts"

/** The one frame that these bytes are. */
const only = (bytes: Uint8Array): { readonly tag: string; readonly payload: Uint8Array } => {
  const frames = new Frames()
  frames.push(bytes)
  assert.isTrue(frames.next())
  const frame = { tag: String.fromCharCode(frames.tag), payload: frames.bytes.slice(frames.start, frames.end) }
  assert.isFalse(frames.next())
  assert.strictEqual(frames.pending, 0)
  return frame
}

describe("FrontendMessage", () => {
  it("sends a query as UTF-8 that ends with a zero byte", () => {
    const { payload, tag } = only(FrontendMessage.query("SELECT 'é'"))
    assert.strictEqual(tag, "Q")
    assert.strictEqual(Buffer.from(payload).toString(), "SELECT 'é'\0")
    assert.deepStrictEqual(FrontendMessage.query(""), Uint8Array.of(0x51, 0, 0, 0, 5, 0))
  })

  it("sends no query that a zero byte would cut in two", () => {
    for (const text of ["\0", "SELECT 1\0", "SELECT 1\0; DROP TABLE orders"]) {
      assert.throws(() => FrontendMessage.query(text), TypeError)
    }
  })

  it.prop("sends every other text whole", { text: Schema.String }, ({ text }) => {
    if (text.includes("\0")) return
    const { payload } = only(FrontendMessage.query(text))
    assert.strictEqual(Buffer.from(payload).toString(), `${text.toWellFormed()}\0`)
  })

  it.prop(
    "sends copy data as it is, and keeps nothing of the caller's bytes",
    { data: Schema.Uint8Array },
    ({ data }) => {
      const given = Uint8Array.from(data)
      const bytes = FrontendMessage.copyData(given)
      given.fill(0)
      const { payload, tag } = only(bytes)
      assert.strictEqual(tag, "d")
      assert.deepStrictEqual(payload, Uint8Array.from(data))
    }
  )

  it("ends the copy and the connection with a bare word", () => {
    assert.deepStrictEqual(FrontendMessage.copyDone, Uint8Array.of(0x63, 0, 0, 0, 4))
    assert.deepStrictEqual(FrontendMessage.terminate, Uint8Array.of(0x58, 0, 0, 0, 4))
  })
})
