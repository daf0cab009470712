/** Which types of the target take every value of one of the source. */
import { assert, describe, it } from "@effect/vitest"
import { type ColumnType, misfit } from "../../src/copy/TypeFit.ts"

const of = (type: string, name: string, more: Partial<ColumnType> = {}): ColumnType => ({
  type,
  base: { schema: "pg_catalog", name },
  labels: null,
  ...more
})

const numeric = (limit: string) => of(`numeric${limit}`, "numeric")
const timestamp = (limit: string) => of(`timestamp${limit} without time zone`, "timestamp")
const varchar = (limit: string) => of(`character varying${limit}`, "varchar")
const char = (limit: number) => of(`character(${limit})`, "bpchar")
const text = of("text", "text")
const citext = (schema: string) =>
  of(`${schema}.citext`, "citext", { base: { schema, name: "citext", extension: "citext" } })
const vector = (schema: string, limit: string) =>
  of(`${schema}.vector${limit}`, "vector", { base: { schema, name: "vector", extension: "vector" } })

const fitting: ReadonlyArray<readonly [source: ColumnType, target: ColumnType]> = [
  [varchar("(10)"), varchar("(20)")],
  [varchar("(10)"), text],
  [char(3), text],
  [char(3), char(4)],
  [char(3), varchar("(3)")],
  [numeric("(10,2)"), numeric("(12,2)")],
  [numeric("(10,2)"), numeric("(12,4)")],
  [of("integer", "int4"), numeric("(10,0)")],
  [of("integer[]", "_int4"), of("bigint[]", "_int8")],
  [of("real", "float4"), of("double precision", "float8")],
  [timestamp("(3)"), timestamp("(6)")],
  [timestamp(""), timestamp("(6)")],
  [of("bit varying(5)", "varbit"), of("bit varying(9)", "varbit")],
  [of("bit(3)", "bit"), of("bit varying(3)", "varbit")],
  [of("json", "json"), of("jsonb", "jsonb")],
  [of("public.mood", "mood", { base: { schema: "public", name: "mood" }, labels: ["sad"] }), text],
  [citext("public"), citext("extensions")],
  [vector("public", "(3)"), vector("extensions", "(3)")],
  [vector("public", "(3)"), vector("extensions", "")]
]

const misfitting: ReadonlyArray<readonly [source: ColumnType, target: ColumnType]> = [
  [varchar("(20)"), varchar("(10)")],
  [text, varchar("(10)")],
  [text, char(10)],
  [numeric("(12,2)"), numeric("(12,4)")],
  [numeric("(10,4)"), numeric("(12,2)")],
  [numeric(""), numeric("(12,2)")],
  [of("bigint", "int8"), numeric("(18,0)")],
  [of("integer", "int4"), of("real", "float4")],
  [of("integer[]", "_int4"), of("bigint", "int8")],
  [timestamp(""), timestamp("(3)")],
  [of("interval", "interval"), of("interval day", "interval")],
  [of("bit(3)", "bit"), of("bit(4)", "bit")],
  [text, of("jsonb", "jsonb")],
  [of("public.citext", "citext", { base: { schema: "public", name: "citext" } }), citext("extensions")],
  [vector("public", "(3)"), vector("extensions", "(4)")]
]

describe("TypeFit", () => {
  it("takes each type that reads every text of the other, within its limits", () => {
    assert.deepStrictEqual(
      fitting.flatMap(([source, target]) => misfit(source, target) ?? []),
      []
    )
  })

  it("refuses each that does not, by both names", () => {
    assert.deepStrictEqual(
      misfitting.map(([source, target]) => misfit(source, target)),
      misfitting.map(([source, target]) => `is ${target.type}, and ${source.type} at the source`)
    )
  })
})
