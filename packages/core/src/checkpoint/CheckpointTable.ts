/**
 * Checkpoints in a table of a database, through effect's `SqlClient`: of PostgreSQL, SQLite or MySQL. Called within a
 * transaction of that client's, it is part of it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { CheckpointError, CheckpointStore } from "./CheckpointService.ts"

/** Which table, and whether to make it. */
export interface SqlOptions {
  /** With its schema or without, `replicant.checkpoints`: columns `key` and `checkpoint`, both text, and `key` unique. */
  readonly table: string
  /** Makes the table where there is none. Left out, it must be there. */
  readonly createTable?: "ifMissing" | undefined
}

/** What databases say differently. */
interface Dialect {
  readonly key: string
  /** Its keys differ by case, and a checkpoint may be of any length. */
  readonly columns: string
  readonly orReplace: string
}

const standard: Dialect = {
  key: "key",
  columns: "key varchar(255) PRIMARY KEY, checkpoint text NOT NULL",
  orReplace: "ON CONFLICT (key) DO UPDATE SET checkpoint = excluded.checkpoint"
}

// `key` is a reserved word of MySQL's, its `text` ends at 64 KiB, and its usual collations take "A" for "a".
const mysql: Dialect = {
  key: "`key`",
  columns:
    "`key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, checkpoint longtext CHARACTER SET utf8mb4 NOT NULL",
  orReplace: "ON DUPLICATE KEY UPDATE checkpoint = VALUES(checkpoint)"
}

const dialectOf = (client: SqlClient.SqlClient): Dialect | undefined =>
  client.onDialectOrElse({ pg: () => standard, sqlite: () => standard, mysql: () => mysql, orElse: () => undefined })

const stringOf = (cause: object, field: string): string | undefined => {
  const value: unknown = Reflect.get(cause, field)
  return typeof value === "string" && value.length < 300 ? value : undefined
}

/**
 * Why, in the database's own words: of a driver's alone the code, as its message may hold a connection string. Texts that may
 * quote the statement's values are left out.
 */
const wordsOf = (cause: unknown): string => {
  if (typeof cause !== "object" || cause === null) return ""
  const inner: unknown = Reflect.get(cause, "cause")
  const code = stringOf(cause, "code") ?? stringOf(cause, "sqlState")
  if (code === undefined) return inner === cause ? "" : wordsOf(inner)
  const isDatabases = /^[0-9A-Z]{5}$/.test(code) ? !/^(22|23|E[A-Z]{4})/.test(code) : /^(ERR_)?SQLITE|^ER_/.test(code)
  const message = isDatabases ? (stringOf(cause, "sqlMessage") ?? stringOf(cause, "message")) : undefined
  return message === undefined ? `: ${code}` : `: ${message} (${code})`
}

const failed = (during: "open" | "load" | "save" | "remove", key: string) => (error: SqlError) =>
  new CheckpointError({ during, key, problem: `${error.reason._tag}${wordsOf(error.reason.cause)}` })

/**
 * Keeps them in a table. Over a client of another database than those three it fails as it opens.
 *
 * @example
 * const store = CheckpointStore.sql({ table: "replicant_checkpoints", createTable: "ifMissing" })
 */
export const sql = ({
  createTable,
  table
}: SqlOptions): Layer.Layer<CheckpointStore, CheckpointError, SqlClient.SqlClient> =>
  Layer.effect(
    CheckpointStore,
    Effect.gen(function* () {
      const client = yield* SqlClient.SqlClient
      const dialect = dialectOf(client)
      if (dialect === undefined) {
        const problem = "this SqlClient is of a database other than PostgreSQL, SQLite and MySQL"
        return yield* new CheckpointError({ during: "open", key: table, problem })
      }
      const name = client(table)
      const keyColumn = client.literal(dialect.key)
      if (createTable === "ifMissing") {
        const create = client`CREATE TABLE IF NOT EXISTS ${name} (${client.literal(dialect.columns)})`
        // PostgreSQL refuses this to who may not create, and to one of two that ask at once, although the table is there.
        const find = client`SELECT ${keyColumn}, checkpoint FROM ${name} WHERE 1 = 0`
        yield* Effect.catch(create, (error) => Effect.mapError(find, () => failed("open", table)(error)))
      }
      return CheckpointStore.of({
        // Values and no names: a client may be told to rename the columns of its results.
        load: (key) =>
          client`SELECT checkpoint FROM ${name} WHERE ${keyColumn} = ${key}`.values.pipe(
            Effect.map(([row]) => Option.map(Option.fromUndefinedOr(row), ([checkpoint]) => checkpoint as string)),
            Effect.mapError(failed("load", key))
          ),
        save: (key, checkpoint) =>
          client`INSERT INTO ${name} (${keyColumn}, checkpoint) VALUES (${key}, ${checkpoint})
            ${client.literal(dialect.orReplace)}`.pipe(Effect.mapError(failed("save", key)), Effect.asVoid),
        remove: (key) =>
          client`DELETE FROM ${name} WHERE ${keyColumn} = ${key}`.pipe(
            Effect.mapError(failed("remove", key)),
            Effect.asVoid
          )
      })
    })
  )
