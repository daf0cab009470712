/** Which column a refused value is of, by what the server says of where it was. */
import { assert, describe, it } from "@effect/vitest"
import { refusedColumn } from "../../src/copy/RefusedValue.ts"

const written = { table: '"public"."t"', columns: ["id", "note", "a: b"] }

const contexts: ReadonlyArray<readonly [context: string | undefined, column: string | undefined]> = [
  ['COPY t, line 3, column note: "a secret, column id: $1"', "note"],
  ["COPY t, line 3, column note: null input", "note"],
  ['COPY t, line 3, column a: b: "x"', "a: b"],
  ["COPY t, Zeile 3, Spalte note: \u00bbx\u00ab", "note"],
  ["COPY t, ligne 3, colonne note : \u00ab x \u00bb", "note"],
  ['COPY t, line 3: "1\tx"', undefined],
  ["unnamed portal parameter $2 = 'a secret $1'", "note"],
  ["unnamed portal parameter $1", "id"],
  ['portal "p" parameter $2', "note"],
  ['SQL statement "INSERT INTO u VALUES ($1)"\nPL/pgSQL function f() line 1', undefined],
  ["unnamed portal parameter $9", undefined],
  [undefined, undefined]
]

describe("refusedColumn", () => {
  it("is a column that was written, in whatever language the server says so, or none", () => {
    assert.deepStrictEqual(
      contexts.map(([context]) => refusedColumn(context, written)),
      contexts.map(([, column]) => column)
    )
  })
})
