import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { plainText, withoutSecrets } from "../../src/cli/PlainText.ts"

describe("plainText", () => {
  it("shows what would move the cursor or turn the text, instead of doing it", () => {
    assert.strictEqual(plainText("a\u001b[2Jb\n\u009b\u202e\u2028é😀"), "a\\u{1b}[2Jb\\n\\u{9b}\\u{202e}\\u{2028}é😀")
  })

  it.prop("holds no control character, whatever the text", { text: Schema.String }, ({ text }) => {
    assert.notMatch(plainText(text), /\p{Cc}/u)
  })
})

describe("withoutSecrets", () => {
  for (const [text, without] of [
    ["postgres://me:SECRET@db/shop", "postgres://me:***@db/shop"],
    ['"postgres://me:SEC@RET:1@db/shop?x=1"', '"postgres://me:***@db/shop?x=1"'],
    ["postgres://db/shop?password=SECRET&sslpassword=SECRET", "postgres://db/shop?password=***&sslpassword=***"],
    ["postgres://me@db/shop", "postgres://me@db/shop"],
    ["at 12:30 me@db", "at 12:30 me@db"]
  ] as const) {
    it(`makes ${text.replaceAll(/SEC@?RET/g, "...")} harmless`, () => assert.strictEqual(withoutSecrets(text), without))
  }
})
