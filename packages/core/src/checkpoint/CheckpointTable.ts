/**
 * Checkpoints in a table of a database, through effect's `SqlClient`: PostgreSQL, SQLite and whatever else takes
 * `INSERT … ON CONFLICT`. Called within a transaction of that client's, it is part of it.
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

/** The kind alone: a driver's message may hold a connection string. */
const failed = (during: "open" | "load" | "save" | "remove", key: string) => (error: SqlError) =>
  new CheckpointError({ during, key, problem: error.reason._tag })

/**
 * Keeps them in a table.
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
      const name = client(table)
      if (createTable === "ifMissing") {
        yield* Effect.mapError(
          client`CREATE TABLE IF NOT EXISTS ${name} (key varchar(255) PRIMARY KEY, checkpoint text NOT NULL)`,
          failed("open", table)
        )
      }
      return CheckpointStore.of({
        load: (key) =>
          client<{ readonly checkpoint: string }>`SELECT checkpoint FROM ${name} WHERE key = ${key}`.pipe(
            Effect.map(([row]) => Option.map(Option.fromUndefinedOr(row), ({ checkpoint }) => checkpoint)),
            Effect.mapError(failed("load", key))
          ),
        save: (key, checkpoint) =>
          client`INSERT INTO ${name} (key, checkpoint) VALUES (${key}, ${checkpoint})
            ON CONFLICT (key) DO UPDATE SET checkpoint = excluded.checkpoint`.pipe(
            Effect.mapError(failed("save", key)),
            Effect.asVoid
          ),
        remove: (key) =>
          client`DELETE FROM ${name} WHERE key = ${key}`.pipe(Effect.mapError(failed("remove", key)), Effect.asVoid)
      })
    })
  )
