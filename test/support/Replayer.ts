/**
 * Applies a stream to a second database, each transaction exactly once and in one transaction there: with its rows it
 * stores where it ended, so no crash can come between the two. The same schema must be there, with nothing in it yet.
 *
 * Rows are found by their replica identity: by key, or by all columns under `REPLICA IDENTITY FULL`, where of equal
 * rows one is taken. A change that meets no row, or several, is an error: both sides have drifted apart.
 *
 * Prepared transactions wait in a table of ours, as the statements they came to, for what becomes of them.
 */
import { type Change, type Handled, Lsn, nextLsn, type Relation, type Row } from "@replicant/core"
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import { Data, Effect, type Scope } from "effect"
import pg from "pg"

/** A statement failed on the target, or did not meet the one row it was for. */
export class ReplayError extends Data.TaggedError("ReplayError")<{
  readonly statement: string
  readonly problem: string
}> {
  override get message(): string {
    return `${this.problem}: ${this.statement.slice(0, 2000)}`
  }
}

/** A column's value as text that its type takes, null aside. */
export type EncodeValue = (value: unknown, column: Relation.RelationColumn) => string

/** For streams whose values are the text that the server printed: `types: "text"`. */
export const encodeVerbatim: EncodeValue = (value, column) => {
  if (typeof value !== "string") throw new TypeError(`column ${column.name} is not in PostgreSQL's own text`)
  return value
}

const encodeScalar = (value: unknown, typeName: string | undefined): string => {
  if (typeName === "json" || typeName === "jsonb") return JSON.stringify(value)
  if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString("hex")}`
  if (typeof value === "boolean") return value ? "t" : "f"
  return Object.is(value, -0) ? "-0" : String(value)
}

/** Nested arrays; those of JSON have one level, as its values may be arrays too. */
const encodeArray = (items: ReadonlyArray<unknown>, element: string): string => {
  const isJson = element === "json" || element === "jsonb"
  const texts = items.map((item) =>
    item === null
      ? "NULL"
      : Array.isArray(item) && !isJson
        ? encodeArray(item, element)
        : `"${encodeScalar(item, element).replace(/["\\]/g, "\\$&")}"`
  )
  return `{${texts.join(element === "box" ? ";" : ",")}}`
}

/** For the values that the built-in decoders make: back to a text that PostgreSQL takes for the same. */
export const encodeDecoded: EncodeValue = (value, { typeName }) =>
  typeName?.endsWith("[]") === true && Array.isArray(value)
    ? encodeArray(value, typeName.slice(0, -2))
    : encodeScalar(value, typeName)

const tableName = ({ name, schema }: Relation.Relation): string => `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`

/** The types of the target's columns as SQL has them, by {@link typeKey}. */
type ColumnTypes = ReadonlyMap<string, string>

const typeKey = (schema: string, name: string, column: string): string => JSON.stringify([schema, name, column])

const columnTypes = `SELECT nspname, relname, attname, format_type(atttypid, atttypmod) AS type
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
  WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema')`

/** What changes come to in SQL. Values are literals of unknown type, which take the type of their column. */
const makeStatements = (encode: EncodeValue, typeOf: ColumnTypes) => {
  const literals = (relation: Relation.Relation, row: Row) =>
    relation.columns
      .filter((column) => Object.hasOwn(row, column.name))
      .map((column) => {
        const value = row[column.name]
        const text = value === null ? undefined : encode(value, column)
        return {
          column: quoteIdentifier(column.name),
          type: typeOf.get(typeKey(relation.schema, relation.name, column.name)),
          isKey: column.isKey,
          text: text === undefined ? undefined : quoteLiteral(text)
        }
      })

  /** A key that did not change is not set: where it is GENERATED ALWAYS, that would be refused. */
  const assignments = (relation: Relation.Relation, row: Row, hasOld: boolean) =>
    literals(relation, row)
      .filter(({ isKey }) => hasOld || !isKey)
      .map(({ column, text }) => `${column} = ${text ?? "NULL"}`)
      .join(", ")

  const byKey = (relation: Relation.Relation, row: Row) =>
    literals(relation, row)
      .filter(({ isKey }) => isKey)
      .map(({ column, text }) => `${column} = ${text}`)
      .join(" AND ")

  /**
   * By text, which types without an equality have too, and as the types print it: `column::text` is another for some. A
   * text of ours may be written otherwise than PostgreSQL would; and `format` prints NULL as nothing.
   */
  const byWholeRow = (relation: Relation.Relation, row: Row) => {
    const conditions = literals(relation, row).map(({ column, text, type }) =>
      text === undefined
        ? `${column} IS NOT DISTINCT FROM NULL`
        : `${column} IS DISTINCT FROM NULL AND format('%s', ${column}) = format('%s', CAST(${text} AS ${type}))`
    )
    const from = `${tableName(relation)} WHERE ${conditions.length === 0 ? "true" : conditions.join(" AND ")}`
    return `(tableoid, ctid) = (SELECT tableoid, ctid FROM ${from} LIMIT 1)`
  }

  const isFull = (change: Extract<Change, { readonly _tag: "Update" | "Delete" }>) => change.old?._tag === "Full"

  return (change: Change): string | undefined => {
    switch (change._tag) {
      case "Insert": {
        const values = literals(change.relation, change.row)
        const columns = values.map(({ column }) => column).join(", ")
        return values.length === 0
          ? `INSERT INTO ${tableName(change.relation)} DEFAULT VALUES`
          : `INSERT INTO ${tableName(change.relation)} (${columns}) OVERRIDING SYSTEM VALUE
             VALUES (${values.map(({ text }) => text ?? "NULL").join(", ")})`
      }
      case "Update": {
        const { old, relation, row } = change
        const where = isFull(change) ? byWholeRow(relation, old!.row) : byKey(relation, old?.row ?? row)
        const set = assignments(relation, row, old !== undefined)
        return set === "" ? undefined : `UPDATE ${tableName(relation)} SET ${set} WHERE ${where}`
      }
      case "Delete": {
        const { old, relation } = change
        const where = isFull(change) ? byWholeRow(relation, old.row) : byKey(relation, old.row)
        return `DELETE FROM ${tableName(relation)} WHERE ${where}`
      }
      case "Truncate":
        return `TRUNCATE ${change.relations.map(tableName).join(", ")}${change.restartIdentity ? " RESTART IDENTITY" : ""}${change.cascade ? " CASCADE" : ""}`
      default:
        return undefined
    }
  }
}

/**
 * As the stream's session is set, so that types print the same here; and no trigger or foreign key does its work twice.
 */
const settings = `SET session_replication_role = replica; SET timezone = 'UTC'; SET datestyle = 'ISO';
  SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'`

const ownTables = `
  CREATE SCHEMA IF NOT EXISTS replayer;
  CREATE TABLE IF NOT EXISTS replayer.position (slot text PRIMARY KEY, end_lsn pg_lsn NOT NULL);
  INSERT INTO replayer.position VALUES ('only', '0/0') ON CONFLICT DO NOTHING;
  CREATE TABLE IF NOT EXISTS replayer.prepared (gid text PRIMARY KEY, statements json NOT NULL)`

export interface Replayer {
  /** The handler for a stream. It returns what acknowledges a transaction once it is committed here. */
  readonly handle: (change: Change) => Effect.Effect<Handled, ReplayError>
  /** The end of what has been applied. */
  readonly position: Effect.Effect<Lsn.Lsn, ReplayError>
  /** Transactions applied, and those that came again and were not. */
  readonly applied: () => number
  readonly skipped: () => number
}

/** A replayer into the database at `url`, as a superuser. */
export const makeReplayer = Effect.fnUntraced(function* (
  url: string,
  encode: EncodeValue = encodeVerbatim
): Effect.fn.Return<Replayer, ReplayError, Scope.Scope> {
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new pg.Client({ connectionString: url }).on("error", () => undefined)),
    (opened) => Effect.promise(() => opened.end().catch(() => undefined))
  )
  const attempt = <A>(statement: string, evaluate: () => Promise<A>) =>
    Effect.tryPromise({ try: evaluate, catch: (cause) => new ReplayError({ statement, problem: String(cause) }) })
  const run = (statement: string) => attempt(statement, () => client.query<Record<string, string>>(statement))
  yield* attempt("connect", () => client.connect())
  yield* run(settings)
  yield* run(ownTables)

  const types = new Map(
    (yield* run(columnTypes)).rows.map((row) => [typeKey(row.nspname!, row.relname!, row.attname!), row.type!])
  )
  const statementOf = makeStatements(encode, types)
  let pending: Array<string> = []
  let applied = 0
  let skipped = 0

  const meetOne = Effect.fnUntraced(function* (statement: string) {
    const { command, rowCount } = yield* run(statement)
    if (command !== "TRUNCATE" && rowCount !== 1) {
      yield* new ReplayError({ statement, problem: `${rowCount} rows instead of one` })
    }
  })

  /** What one unit of delivery comes to, and its end, in one transaction; nothing if it is behind us. */
  const applyOnce = (endLsn: Lsn.Lsn, body: Effect.Effect<void, ReplayError>) =>
    Effect.gen(function* () {
      const end = Lsn.format(endLsn)
      yield* run("BEGIN")
      const { rowCount } = yield* run(`UPDATE replayer.position SET end_lsn = '${end}' WHERE end_lsn < '${end}'`)
      if (rowCount === 1) yield* body
      yield* run("COMMIT")
      if (rowCount === 1) applied += 1
      else skipped += 1
    }).pipe(Effect.tapError(() => Effect.ignore(run("ROLLBACK"))))

  const takePrepared = (gid: string) =>
    Effect.map(
      run(`DELETE FROM replayer.prepared WHERE gid = ${quoteLiteral(gid)} RETURNING statements::text`),
      ({ rows }) => JSON.parse(rows[0]?.statements ?? "[]") as ReadonlyArray<string>
    )

  const apply = Effect.fnUntraced(function* (change: Change) {
    switch (change._tag) {
      case "Begin":
        // What a cut connection left of a transaction comes again from its beginning.
        pending = []
        break
      case "Commit":
        yield* applyOnce(change.endLsn, Effect.forEach(pending, meetOne, { discard: true }))
        break
      case "Prepare": {
        const statements = quoteLiteral(JSON.stringify(pending))
        const values = `${quoteLiteral(change.gid)}, ${statements}`
        yield* applyOnce(change.endLsn, meetOne(`INSERT INTO replayer.prepared VALUES (${values})`))
        break
      }
      case "CommitPrepared":
        yield* applyOnce(
          change.endLsn,
          Effect.flatMap(takePrepared(change.gid), (statements) =>
            Effect.forEach(statements, meetOne, { discard: true })
          )
        )
        break
      case "RollbackPrepared":
        yield* applyOnce(change.endLsn, Effect.asVoid(takePrepared(change.gid)))
        break
      default: {
        const statement = statementOf(change)
        if (statement !== undefined) pending.push(statement)
      }
    }
    return nextLsn(change)
  })

  return {
    handle: apply,
    position: Effect.map(
      run("SELECT end_lsn FROM replayer.position"),
      ({ rows }) => Lsn.fromString(rows[0]!.end_lsn!)!
    ),
    applied: () => applied,
    skipped: () => skipped
  }
})
