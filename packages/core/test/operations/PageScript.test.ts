/** What of the page's script is no picture, and so can be asked without a browser. */
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Doctor from "../../src/doctor/Doctor.ts"
import { script } from "../../src/operations/PageScript.ts"

/** A declaration of the script, with those before it. */
const upTo = (name: string): string => {
  const [, before = ""] = /^([\s\S]*?\nconst bytes = [\s\S]*?\n\}\n)/.exec(script) ?? []
  assert.include(before, `const ${name} = `)
  return before.slice(before.indexOf("const units"))
}

describe("the page", () => {
  it("writes bytes as the commands and the doctor do", () => {
    const amounts = [
      0,
      1,
      512,
      1023,
      1024,
      1500,
      102_399,
      102_400,
      16 * 2 ** 20,
      2.5 * 2 ** 30,
      2 ** 40,
      3 * 2 ** 50,
      2 ** 62
    ]
    const shown: unknown = runInNewContext(`${upTo("bytes")}; JSON.stringify(${JSON.stringify(amounts)}.map(bytes))`)
    assert.deepStrictEqual(JSON.parse(String(shown)), amounts.map(Doctor.bytes))
    assert.include(String(shown), "3 PB")
  })
})
