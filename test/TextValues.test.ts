/** `types: "text"`, on a real server: every value is what PostgreSQL's own output function prints, in either format. */
import { assert, describe } from "@effect/vitest"
import { Pgoutput, type Row } from "@replicant/core"
import { Effect } from "effect"
import { follow, insertedRows } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { textOnlyEdges, textOnlyUserTypes, typeEdges, userTypes, withoutArrays } from "./support/TypeEdges.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

/** As the stream's own session is set. */
const settings = [
  "SET datestyle = 'ISO'",
  "SET intervalstyle = 'postgres'",
  "SET extra_float_digits = 3",
  "SET bytea_output = 'hex'",
  "SET timezone = 'UTC'",
  "SET search_path = ''"
].join("; ")

type Edges = Readonly<Record<string, ReadonlyArray<string>>>

/** A table of a column a type: its edges one below the other, then an array of them all, where there are such, and NULL. */
const tableOf = (name: string, edges: Edges) => {
  const types = Object.keys(edges)
  const value = (type: string, text: string) => `'${text.replaceAll("'", "''")}'::${type}`
  const depth = Math.max(...Object.values(edges).map((values) => values.length))
  const hasArray = (type: string) => !withoutArrays.includes(type)
  const columns = types.flatMap((type, index) => [
    `c${index} ${type}`,
    ...(hasArray(type) ? [`a${index} ${type}[]`] : [])
  ])
  const row = (at: number) =>
    types.flatMap((type) => {
      const values = edges[type]!
      const scalar = values[at] === undefined ? "NULL" : value(type, values[at])
      const bounded = `array_fill(${value(type, values[0]!)}, ARRAY[2, 1], ARRAY[0, -3])::${type}[]`
      const all = `ARRAY[${[...values.map((text) => value(type, text)), "NULL"].join(", ")}]::${type}[]`
      return hasArray(type) ? [scalar, at === 0 ? all : at === 1 ? bounded : at === 2 ? "'{}'" : "NULL"] : [scalar]
    })
  return {
    columns: columns.map((column) => column.split(" ")[0]!),
    create: `CREATE TABLE ${name} (id int, ${columns.join(", ")}); ALTER TABLE ${name} REPLICA IDENTITY FULL`,
    rows: Array.from({ length: depth + 1 }, (_, at) => `INSERT INTO ${name} VALUES (${at}, ${row(at).join(", ")})`)
  }
}

/** `format` prints by a type's output function, and nothing is cast. */
const printed = (workspace: Workspace, name: string, columns: ReadonlyArray<string>) =>
  workspace.sql(
    `${settings}; SELECT id::text, ${columns.map((column) => `CASE WHEN num_nulls(${column}) = 1 THEN NULL ELSE format('%s', ${column}) END AS ${column}`).join(", ")} FROM public.${name} ORDER BY ${name}.id`
  )

const assertPrinted = (rows: ReadonlyArray<Row>, expected: ReadonlyArray<Row>, types: ReadonlyArray<string>) => {
  assert.strictEqual(rows.length, expected.length)
  for (const [index, row] of rows.entries()) {
    for (const [column, text] of Object.entries(expected[index]!)) {
      assert.strictEqual(row[column], text, `${column}, of ${types[Number(column.slice(1))]}`)
    }
  }
}

describe(`types: "text"`, () => {
  for (const format of ["text", "binary"] as const) {
    onServer("postgres", `is the server's own output, of all types and arrays of them, in ${format} format`, (server) =>
      Effect.gen(function* () {
        const edges: Edges = format === "binary" ? typeEdges : { ...typeEdges, ...textOnlyEdges }
        const { columns, create, rows } = tableOf("edges", edges)
        const workspace = yield* makeWorkspace(server, { sql: [...userTypes, ...textOnlyUserTypes, create].join("; ") })
        const plugin = Pgoutput.make({
          publications: [workspace.publication],
          types: "text",
          format,
          ...(format === "binary" ? { enums: ["mood"] } : {})
        })
        const stream = yield* follow(workspace, { options: { plugin } })
        for (const row of rows) yield* workspace.sql(row)
        yield* workspace.sql("UPDATE edges SET id = id + 100")
        yield* stream.saw("Commit", rows.length + 1)
        const expected = yield* printed(workspace, "edges", columns)
        const inserted = insertedRows(stream.changes).map((row) => ({ ...row, id: String(Number(row.id) + 100) }))
        const types = Object.keys(edges)
        assertPrinted(inserted, expected, types)
        const updates = stream.changes.flatMap((change) => (change._tag === "Update" ? [change] : []))
        assertPrinted(
          updates.map(({ row }) => row),
          expected,
          types
        )
        assert.deepStrictEqual(
          updates.map(({ old }) => old?.row),
          insertedRows(stream.changes)
        )
      })
    )
  }
})
