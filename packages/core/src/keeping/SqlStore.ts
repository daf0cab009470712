/** A table kept in a table of another database, over Effect's `SqlClient`: PostgreSQL, SQLite, MySQL and MariaDB. */
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import { dialectOf, inTransaction, unknownDialect } from "../checkpoint/SqlDialect.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { Row } from "../table/Table.ts"
import type { Write } from "./ApplyTo.ts"
import { type Storable, StoredRowMismatch } from "./KeyedStores.ts"
import type { Move, Operation, Patch, Place, Put } from "./Operation.ts"

/** Which table, and what is written of a row. */
export interface SqlStoreOptions<T extends Storable> {
  /**
   * With its schema or without: `app.orders`. It has a unique index over the columns of the declared key, and no other: rows that
   * came one after the other are written together.
   */
  readonly table: string
  /**
   * The columns of a row, or of a part of it. Left out: those that were declared, by the names that they have in PostgreSQL, as the
   * Schema encodes them, with what is no plain value as JSON; arrays as such where the store is PostgreSQL.
   */
  readonly columns?: ((row: Partial<Row<T>>) => { readonly [column: string]: unknown }) | undefined
}

type Columns = { readonly [column: string]: unknown }

/** Parameters of one statement: SQLite takes 32,766, PostgreSQL 65,535. */
const mostParameters = 30_000

/** Conditions of one DELETE: SQLite's parser takes 1,000 deep. */
const mostConditions = 500

/** One store's statements. */
class Statements<T extends Storable> {
  private readonly client: SqlClient.SqlClient
  private readonly table: T
  private readonly options: SqlStoreOptions<T>
  private readonly isMysql: boolean
  private readonly isPostgres: boolean
  private readonly isSqlite: boolean
  private readonly encoders: ReadonlyMap<string, (value: unknown) => unknown>

  constructor(client: SqlClient.SqlClient, table: T, options: SqlStoreOptions<T>) {
    this.client = client
    this.table = table
    this.options = options
    const dialect = dialectOf(client)
    this.isMysql = dialect === "mysql"
    this.isPostgres = dialect === "postgres"
    this.isSqlite = dialect === "sqlite"
    const fields = Object.entries(table.rowSchema.fields as Readonly<Record<string, unknown>>)
    this.encoders = new Map(
      fields.map(([property, field]) => [property, Schema.encodeUnknownSync(field as Schema.Codec<unknown, unknown>)])
    )
  }

  private get name() {
    return this.client(this.options.table)
  }

  private columnOf(property: string): string {
    return this.table.columns.get(property) ?? property
  }

  private valueOf(value: unknown): unknown {
    if (typeof value === "boolean" && this.isSqlite) return value ? 1 : 0
    if (value === undefined) return null
    const isPlain = typeof value !== "object" || value === null || value instanceof Uint8Array || value instanceof Date
    return isPlain || (this.isPostgres && globalThis.Array.isArray(value)) ? value : JSON.stringify(value)
  }

  private encoded(row: object): Columns {
    const named: { [column: string]: unknown } = {}
    for (const [property, value] of Object.entries(row)) {
      const encode = this.encoders.get(property)
      if (encode !== undefined) named[this.columnOf(property)] = this.valueOf(encode(value))
    }
    return named
  }

  /** What is written, of the properties that are there. */
  private columnsOf(row: object): Effect.Effect<Columns, StoredRowMismatch> {
    const { columns } = this.options
    if (columns !== undefined) return Effect.sync(() => columns(row as Partial<Row<T>>))
    return Effect.try({
      try: () => this.encoded(row),
      catch: () => new StoredRowMismatch({ table: this.table.name, during: "encode" })
    })
  }

  private isAt({ key }: Place<T>): Effect.Effect<Fragment, StoredRowMismatch> {
    const { client } = this
    return Effect.map(this.columnsOf(key as object), (columns) =>
      client.and(Object.entries(columns).map(([column, value]) => client`${client(column)} = ${value}`))
    )
  }

  /** Rows of the same columns. */
  private upsert(rows: Array.NonEmptyReadonlyArray<Columns>): Effect.Effect<unknown, SqlError> {
    const { client, name, table } = this
    const columns = Object.keys(rows[0])
    const names = (which: ReadonlyArray<string>) => client.csv(which.map((column) => client`${client(column)}`))
    const values = rows.map((row) => client`(${client.csv(columns.map((column) => client`${row[column]}`))})`)
    const keys = table.key.map((property) => this.columnOf(property))
    const others = columns.filter((column) => !keys.includes(column))
    const insert = client`INSERT INTO ${name} (${names(columns)}) VALUES ${client.csv(values)}`
    if (this.isMysql) {
      const sets = columns.map((column) => client`${client(column)} = VALUES(${client(column)})`)
      return client`${insert} ON DUPLICATE KEY UPDATE ${client.csv(sets)}`
    }
    const sets = others.map((column) => client`${client(column)} = excluded.${client(column)}`)
    const action = sets.length === 0 ? client`NOTHING` : client`UPDATE SET ${client.csv(sets)}`
    return client`${insert} ON CONFLICT (${names(keys)}) DO ${action}`
  }

  private readonly put = Effect.fnUntraced({ self: this }, function* (puts: ReadonlyArray<Put<T>>) {
    const rows = yield* Effect.forEach(puts, ({ row }) => this.columnsOf(row as object))
    const alike = Array.groupBy(rows, (row) => JSON.stringify(Object.keys(row)))
    for (const rows of Object.values(alike)) {
      const width = Math.max(1, Object.keys(rows[0]).length)
      const chunks = Array.chunksOf(rows, Math.max(1, Math.floor(mostParameters / width)))
      yield* Effect.forEach(chunks, (chunk) => this.upsert(chunk), { discard: true })
    }
  })

  private readonly remove = Effect.fnUntraced({ self: this }, function* (places: ReadonlyArray<Place<T>>) {
    const { client, name } = this
    for (const chunk of Array.chunksOf(places, mostConditions)) {
      const conditions = yield* Effect.forEach(chunk, (place) => this.isAt(place))
      yield* client`DELETE FROM ${name} WHERE ${client.or(conditions)}`
    }
  })

  private readonly patch = Effect.fnUntraced({ self: this }, function* (at: Place<T>, row: Patch<T>["row"]) {
    const { client, name } = this
    const columns = yield* this.columnsOf(row as object)
    const sets = Object.entries(columns).map(([column, value]) => client`${client(column)} = ${value}`)
    if (sets.length === 0) return
    yield* client`UPDATE ${name} SET ${client.csv(sets)} WHERE ${yield* this.isAt(at)}`
  })

  private readonly move = Effect.fnUntraced({ self: this }, function* ({ from, row, ...to }: Move<T>) {
    const { client, name } = this
    const there = yield* client`SELECT 1 AS one FROM ${name} WHERE ${yield* this.isAt(to)}`
    yield* this.patch(there.length === 0 ? from : to, Object.assign({}, row, to.key))
    if (there.length > 0) yield* this.remove([from])
  })

  /** Operations of distinct rows: so those of one kind go together. */
  readonly write: Write<T, SqlError | StoredRowMismatch> = (operations) =>
    inTransaction(this.client)(
      Effect.gen({ self: this }, function* () {
        const of = <Tag extends Operation<T>["_tag"]>(tag: Tag) =>
          operations.filter(
            (operation): operation is Extract<Operation<T>, { readonly _tag: Tag }> => operation._tag === tag
          )
        const { client, name } = this
        if (operations[0]._tag === "Clear") yield* client`DELETE FROM ${name}`
        // Another unique index of the store's may be met by what comes: so what goes makes room first.
        yield* this.remove(of("Remove"))
        yield* this.put(of("Put"))
        yield* Effect.forEach(of("Patch"), (patch) => this.patch(patch, patch.row), { discard: true })
        yield* Effect.forEach(of("Move"), this.move, { discard: true })
      })
    )
}

/**
 * Writes into a table of another database, each run of operations in a transaction. With `Handler.once` around it the transaction is
 * that of its position.
 *
 * @example
 * const orders = yield* Table.inSql(Orders, { table: "orders_copy" })
 * yield* withLogicalStream(
 *   options,
 *   Table.handler([Orders], Handler.once({ table: "positions" }, Table.applyTo(Orders, orders)))
 * )
 */
export const inSql = <T extends Storable>(
  table: T,
  options: SqlStoreOptions<T>
): Effect.Effect<Write<T, SqlError | StoredRowMismatch>, InvalidOption, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (client) =>
    dialectOf(client) === undefined
      ? Effect.fail(new InvalidOption({ option: "SqlClient", problem: unknownDialect }))
      : Effect.succeed(new Statements(client, table, options).write)
  )
