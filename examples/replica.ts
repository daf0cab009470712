/**
 * Keeps another database in step, each transaction exactly once: its changes and its end are stored there in one
 * transaction, so no crash can come between them. What is delivered again is behind that end, and passed over.
 *
 * Both sides have the same tables, each with a primary key, and hold the same rows when this begins: none, for instance.
 */
import { NodeRuntime } from "@effect/platform-node"
import type { Row, Transaction } from "@replicant/core"
import { Lsn, Pgoutput, quoteIdentifier, Relation, withTransactionStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect } from "effect"
import pg from "pg"

/** Values stay the text that PostgreSQL printed: the other side takes it back as it is, and nothing is lost. */
const plugin = Pgoutput.make({ publications: ["orders"], types: "text" })

const table = ({ name, schema }: Relation.Relation) => `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`

/** SQL for one row, with `$1`, `$2`, … for the values that `sql` has come upon. */
const withValues = (sql: (equal: (row: Row, names: ReadonlyArray<string>, separator: string) => string) => string) => {
  const values: Array<unknown> = []
  const equal = (row: Row, names: ReadonlyArray<string>, separator: string) =>
    names.map((name) => `${quoteIdentifier(name)} = $${values.push(row[name])}`).join(separator)
  return { text: sql(equal), values }
}

const statement = (change: Transaction["changes"][number]): pg.QueryConfig | undefined => {
  if (change._tag === "Truncate") return { text: `TRUNCATE ${change.relations.map(table)}` }
  if (change._tag === "Insert") {
    const names = Object.keys(change.row).map(quoteIdentifier)
    const places = names.map((_, index) => `$${index + 1}`)
    const text = `INSERT INTO ${table(change.relation)} (${names}) VALUES (${places})`
    return { text, values: Object.values(change.row) }
  }
  if (change._tag !== "Update" && change._tag !== "Delete") return undefined
  const { relation } = change
  const key = Relation.keyColumns(relation)
  if (change._tag === "Delete") {
    return withValues((equal) => `DELETE FROM ${table(relation)} WHERE ${equal(change.old.row, key, " AND ")}`)
  }
  const { old, row } = change
  // An unchanged TOAST column is not in the row: so it is left alone there too. `old` tells of a key that has changed.
  return withValues((equal) => {
    const set = `UPDATE ${table(relation)} SET ${equal(row, Object.keys(row), ", ")}`
    return `${set} WHERE ${equal(old?.row ?? row, key, " AND ")}`
  })
}

const program = Effect.gen(function* () {
  const client = new pg.Client({ connectionString: yield* Config.String("REPLICA_URL") })
  const run = (query: pg.QueryConfig) => Effect.tryPromise(() => client.query(query))
  yield* Effect.tryPromise(() => client.connect())
  yield* Effect.addFinalizer(() => Effect.promise(() => client.end()))
  yield* run({ text: "CREATE TABLE IF NOT EXISTS replica_position (slot text PRIMARY KEY, end_lsn pg_lsn)" })
  yield* run({ text: "INSERT INTO replica_position VALUES ('replica', '0/0') ON CONFLICT DO NOTHING" })

  const apply = Effect.fnUntraced(function* ({ changes, endLsn }: Transaction) {
    yield* run({ text: "BEGIN" })
    const advance = "UPDATE replica_position SET end_lsn = $1 WHERE end_lsn < $1"
    const { rowCount } = yield* run({ text: advance, values: [Lsn.format(endLsn)] })
    const statements = rowCount === 0 ? [] : changes.map(statement).filter((query) => query !== undefined)
    yield* Effect.forEach([...statements, { text: "COMMIT" }], run, { discard: true })
  })
  return yield* withTransactionStream({ slot: "replica", plugin, createSlot: "permanent" }, apply)
})

program.pipe(Effect.scoped, Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
