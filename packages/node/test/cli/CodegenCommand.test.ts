import { assert, describe, it } from "@effect/vitest"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { type CodegenFlags, codegenPlan } from "../../src/cli/CodegenCommand.ts"

const plan = (flags: Partial<CodegenFlags>) =>
  codegenPlan({ publication: [], table: [], schema: [], out: Option.none(), check: false, ...flags })

const refusal = (flags: Partial<CodegenFlags>) => Result.getOrThrow(Result.flip(plan(flags))).message

describe("codegenPlan", () => {
  it("selects by one kind of name, whatever their order", () => {
    assert.deepStrictEqual(plan({ table: ["b", "a", "b"] }), plan({ table: ["a", "b"] }))
    assert.deepStrictEqual(Result.getOrThrow(plan({ publication: ["shop"] })), {
      selection: { _tag: "Publications", publications: ["shop"] },
      args: ["--publication", "shop"]
    })
    assert.deepStrictEqual(Result.getOrThrow(plan({ schema: ["s"] })).selection, { _tag: "Schemas", schemas: ["s"] })
  })

  it("keeps the file out of the module's header, so that it may be moved", () => {
    assert.deepStrictEqual(plan({ table: ["a"], out: Option.some("x.ts"), check: true }), plan({ table: ["a"] }))
  })

  it("refuses none, two kinds, and a check of no file", () => {
    assert.include(refusal({}), "no table is named")
    assert.include(refusal({ publication: ["a"], schema: ["b"] }), "exclude each other")
    assert.include(refusal({ table: ["a"], check: true }), "--check")
  })
})
