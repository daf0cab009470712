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
import { dialectOf, problemOf, unknownDialect } from "./SqlDialect.ts"

/** Which table, and whether to make it. */
export interface SqlOptions {
  /** With its schema or without, `replicant.checkpoints`: columns `key` and `checkpoint`, both text, and `key` unique. */
  readonly table: string
  /** Makes the table where there is none. Left out, it must be there. */
  readonly createTable?: "ifMissing" | undefined
}

/** What databases say differently. */
interface Words {
  readonly key: string
  /** Its keys differ by case, and a checkpoint may be of any length. */
  readonly columns: string
  readonly orReplace: string
}

const standard: Words = {
  key: "key",
  columns: "key varchar(255) PRIMARY KEY, checkpoint text NOT NULL",
  orReplace: "ON CONFLICT (key) DO UPDATE SET checkpoint = excluded.checkpoint"
}

// `key` is a reserved word of MySQL's, its `text` ends at 64 KiB, and its usual collations take "A" for "a".
const mysql: Words = {
  key: "`key`",
  columns:
    "`key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, checkpoint longtext CHARACTER SET utf8mb4 NOT NULL",
  orReplace: "ON DUPLICATE KEY UPDATE checkpoint = VALUES(checkpoint)"
}

const failed = (during: "open" | "load" | "save" | "remove", key: string) => (error: SqlError) =>
  new CheckpointError({ during, key, problem: problemOf(error) })

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
        return yield* new CheckpointError({ during: "open", key: table, problem: unknownDialect })
      }
      const words = dialect === "mysql" ? mysql : standard
      const name = client(table)
      const keyColumn = client.literal(words.key)
      if (createTable === "ifMissing") {
        const create = client`CREATE TABLE IF NOT EXISTS ${name} (${client.literal(words.columns)})`
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
            ${client.literal(words.orReplace)}`.pipe(Effect.mapError(failed("save", key)), Effect.asVoid),
        remove: (key) =>
          client`DELETE FROM ${name} WHERE ${keyColumn} = ${key}`.pipe(
            Effect.mapError(failed("remove", key)),
            Effect.asVoid
          )
      })
    })
  )
