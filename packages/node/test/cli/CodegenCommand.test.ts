import { assert, describe, it } from "@effect/vitest"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import {
  type CodegenConfig,
  type CodegenFlags,
  codegenPlan,
  configPlans,
  isConfigured
} from "../../src/cli/CodegenPlan.ts"

const none: CodegenFlags = {
  publication: [],
  table: [],
  schema: [],
  exclude: [],
  casing: "keep",
  column: [],
  format: Option.none(),
  out: Option.none(),
  config: Option.none(),
  check: false
}

const plan = (flags: Partial<CodegenFlags>) => codegenPlan({ ...none, ...flags })

const refusal = (flags: Partial<CodegenFlags>) => Result.getOrThrow(Result.flip(plan(flags))).message

describe("codegenPlan", () => {
  it("selects by one kind of name, whatever their order", () => {
    assert.deepStrictEqual(plan({ table: ["b", "a", "b"] }), plan({ table: ["a", "b"] }))
    const { args, selection } = Result.getOrThrow(plan({ publication: ["shop"] }))
    assert.deepStrictEqual(selection, { _tag: "Publications", publications: ["shop"] })
    assert.deepStrictEqual(args, ["--publication", "shop"])
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

  it("says all that the module hangs on in its header, in one order", () => {
    const flags: Partial<CodegenFlags> = {
      table: ["shop.*"],
      exclude: ["shop.tmp_*", "shop.old"],
      casing: "camel",
      column: ["orders.meta=./schemas.ts#Meta"],
      format: Option.some("prettier --parser typescript")
    }
    assert.deepStrictEqual(Result.getOrThrow(plan(flags)).args, [
      ...["--table", "shop.*", "--exclude", "shop.old", "--exclude", "shop.tmp_*", "--casing", "camel"],
      ...["--column", "public.orders.meta=./schemas.ts#Meta", "--format", "prettier --parser typescript"]
    ])
  })

  it("refuses what is no column's Schema, and one name from two modules", () => {
    for (const column of ["orders.meta", "meta=./a.ts#A", "orders.meta=./a.ts", "orders.meta=./a.ts#not a name"]) {
      assert.include(refusal({ table: ["a"], column: [column] }), "no column's Schema")
    }
    assert.include(refusal({ table: ["a"], column: ["a.b=./a.ts#A", "a.c=./b.ts#A"] }), "two modules")
  })
})

describe("a file of modules", () => {
  const plans = (modules: CodegenConfig["modules"]) => configPlans({ modules }, "shop.json")

  it("says of each what flags would", () => {
    const columns = { "public.orders.meta": "./schemas.ts#Meta" }
    const [one, two] = Result.getOrThrow(
      plans([
        { out: "a.ts", publications: ["shop"], casing: "camel", columns },
        { out: "b.ts", tables: ["log.*"] }
      ])
    )
    const said = Result.getOrThrow(
      plan({ publication: ["shop"], casing: "camel", column: ["public.orders.meta=./schemas.ts#Meta"] })
    )
    assert.deepStrictEqual({ ...one, args: said.args }, { ...said, out: "a.ts" })
    assert.deepStrictEqual([one?.args, two?.args], Array(2).fill(["--config", "shop.json"]))
  })

  it("tells which module makes no sense, and refuses two of one file", () => {
    const refused = (modules: CodegenConfig["modules"]) => Result.getOrThrow(Result.flip(plans(modules))).message
    assert.match(
      refused([{ out: "a.ts", tables: ["a"] }, { out: "b.ts" }]),
      /shop\.json, modules\[1\]: no table is named/
    )
    assert.match(
      refused([
        { out: "a.ts", tables: ["a"] },
        { out: "a.ts", tables: ["b"] }
      ]),
      /two modules go to a\.ts/
    )
  })

  it("takes no flag beside it but --check", () => {
    const config = Option.some("shop.json")
    assert.isTrue(Result.getOrThrow(isConfigured({ ...none, config, check: true })))
    assert.isTrue(Result.isFailure(isConfigured({ ...none, config, table: ["a"] })))
    assert.isTrue(Result.isFailure(isConfigured({ ...none, config, out: Option.some("a.ts") })))
    assert.isFalse(Result.getOrThrow(isConfigured(none)))
  })
})
