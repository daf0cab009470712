/**
 * Live queries: changes of tables invalidate keys of Effect's `Reactivity`, so that whatever hangs on them (reactive queries of a
 * `SqlClient`, RPC, atoms, streams) asks again. One request a read, whatever it brought.
 *
 * A query asks the database, and not the stream: so it sees every transaction whole. And it must not ask before there is something to
 * see, as it is told once: a commit is streamed a moment before others can see it.
 */
import * as Effect from "effect/Effect"
import { Reactivity } from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { problemOf } from "../checkpoint/SqlDialect.ts"
import { defaultReconnect } from "../replication/Reconnect.ts"
import type { ChangeAfterSnapshot } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import { type Consume, durable, type Handler } from "../stream/Handler.ts"
import { handler } from "../stream/Table.ts"
import type { TypedOf } from "../stream/TypedSnapshot.ts"
import type { Any, KeyRow } from "../table/Table.ts"
import type { TableError } from "../table/TableError.ts"
import { idOf } from "./Operation.ts"
import { untilVisible } from "./Visible.ts"

/** A row's change of one of these tables. */
export type RowChangeOf<T extends Any> = Extract<
  TypedOf<ChangeAfterSnapshot, T>,
  { readonly _tag: "Insert" | "Update" | "Delete" | "SnapshotRow" | "SnapshotRowDeleted" }
>

/** Which changes concern somebody. */
export interface InvalidatesOptions<T extends Any> {
  /** Rows that nobody asks for need not be told. All are when left out. */
  readonly where?: ((change: RowChangeOf<T>) => boolean) | undefined
  /** Keys beside those of the table and the row: `(change) => [`customer:${id}`]`. */
  readonly keys?: ((change: RowChangeOf<T>) => ReadonlyArray<string>) | undefined
}

const every = (name: string): string => `${name}:*`

/** So many rows of a table in one read are told as all of its rows. */
const mostRows = 1000

/**
 * What a query registers that asks for these rows of a table, by their keys; for the table as a whole its name is enough.
 *
 * @example
 * const one = Reactivity.stream(loadOrders, Table.reactivityKeys(Orders, { id: 42 }))
 *
 * @example
 * const all = Reactivity.stream(loadOrders, [Orders.name])
 */
export const reactivityKeys = <T extends Any>(table: T, ...keys: ReadonlyArray<KeyRow<T>>): ReadonlyArray<string> => [
  ...keys.map((key) => `${table.name}:${idOf(table, key)}`),
  every(table.name)
]

/** Keys that one read makes void, and the transactions that did. */
class Voided<T extends Any> {
  readonly xids = new Set<number>()
  private readonly rows = new Map<string, Set<string>>()
  private readonly whole = new Set<string>()
  private readonly others = new Set<string>()
  private readonly tables: ReadonlyMap<string, T>
  private readonly options: InvalidatesOptions<T>

  constructor(tables: ReadonlyMap<string, T>, options: InvalidatesOptions<T>) {
    this.tables = tables
    this.options = options
  }

  take(change: TypedOf<ChangeAfterSnapshot, T, "untyped">): void {
    const told = change._tag === "Untyped" ? change.change : change
    if ("begin" in told && told.begin !== undefined) this.xids.add(told.begin.xid)
    switch (change._tag) {
      case "Insert":
      case "Update":
      case "Delete":
      case "SnapshotRow":
      case "SnapshotRowDeleted":
        this.takeRow(change as RowChangeOf<T>)
        return
      case "Untyped":
      case "UntypedSnapshotRow":
        this.whole.add(change.table)
        return
      case "Truncate":
        for (const name of change.tables) this.whole.add(name)
        return
      case "SnapshotStarted":
      case "SnapshotResumed":
      case "SnapshotTableRestarted":
      case "TableSnapshotStarted":
      case "Gap":
        for (const name of this.tables.keys()) this.whole.add(name)
    }
  }

  /** Those of the tables, those of rows, and the program's own. */
  get keys(): ReadonlyArray<string> {
    const keys = [...this.others]
    for (const name of this.whole) keys.push(name, every(name))
    for (const [name, ids] of this.rows) {
      if (this.whole.has(name)) continue
      keys.push(name)
      if (ids.size > mostRows) keys.push(every(name))
      else for (const id of ids) keys.push(`${name}:${id}`)
    }
    return keys
  }

  get isEmpty(): boolean {
    return this.rows.size + this.whole.size + this.others.size === 0
  }

  private takeRow(change: RowChangeOf<T>): void {
    const { keys, where } = this.options
    if (where?.(change) === false) return
    for (const key of keys?.(change) ?? []) this.others.add(key)
    const table = this.tables.get(change.table)!
    const ids = this.rows.get(change.table) ?? new Set<string>()
    this.rows.set(change.table, ids)
    const old = "old" in change ? change.old?.row : undefined
    if (old !== undefined) this.add(ids, table, old)
    if ("row" in change) this.add(ids, table, Object.assign({}, old, change.row))
  }

  private add(ids: Set<string>, table: T, row: unknown): void {
    // Without a declared key rows are not told apart.
    if (table.key.length === 0) this.whole.add(table.name)
    else if (ids.size <= mostRows) ids.add(idOf(table, row as KeyRow<T>))
  }
}

/** What asks the database is asked again, until it answers. */
const persevering = <A, R>(effect: Effect.Effect<A, SqlError, R>): Effect.Effect<A, never, R> =>
  effect.pipe(
    Effect.tapError((error) => Effect.logWarning(`cannot ask which changes can be seen: ${problemOf(error)}`)),
    Effect.retry(defaultReconnect),
    Effect.orDie // It is tried for ever.
  )

/**
 * A handler by which queries that hang on these tables ask again: all at the beginning of each connection, since of what happened
 * before one of a temporary slot tells nothing, and then those of the rows that have changed, once the change can be seen by who asks
 * the database of the `SqlClient`, be it a standby. A row that does not fit its Schema makes all queries of its table ask.
 *
 * @example
 * withLogicalStream({ ...options, createSlot: "temporary" }, Table.invalidates([Orders]))
 */
export const invalidates = <T extends Any>(
  tables: ReadonlyArray<T>,
  options: InvalidatesOptions<T> = {}
): Handler<ChangeAfterSnapshot, TableError, Reactivity | SqlClient.SqlClient> => {
  const byName = new Map(tables.map((table) => [table.name as string, table]))
  return {
    make: Effect.fnUntraced(function* (session): Effect.fn.Return<
      Consume<ChangeAfterSnapshot, TableError>,
      TableError | SnapshotError,
      Reactivity | SqlClient.SqlClient | Scope.Scope
    > {
      const reactivity = yield* Reactivity
      const client = yield* SqlClient.SqlClient
      yield* reactivity.invalidate(tables.flatMap(({ name }) => [name, every(name)]))
      const tell = durable((changes: ReadonlyArray<TypedOf<ChangeAfterSnapshot, T, "untyped">>) => {
        const voided = new Voided(byName, options)
        for (const change of changes) voided.take(change)
        if (voided.isEmpty) return Effect.void
        const isVisible = Effect.provideService(untilVisible(voided.xids), SqlClient.SqlClient, client)
        return Effect.andThen(persevering(isVisible), reactivity.invalidate(voided.keys))
      })
      return yield* handler<T, ChangeAfterSnapshot>(tables, tell, { onMismatch: "untyped" }).make(session)
    })
  }
}
