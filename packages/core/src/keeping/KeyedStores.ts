/** Stores that a table is kept in, in the process and over Effect's `KeyValueStore`. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { KeyValueStore, type KeyValueStoreError } from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import { errorJson } from "../ReplicationError.ts"
import type { Any, KeyRow, Row } from "../table/Table.ts"
import type { Write } from "./ApplyTo.ts"
import { idOf, type Operation, over } from "./Operation.ts"

const change = <T extends Any>(map: Map<string, Row<T>>, operation: Operation<T>): void => {
  switch (operation._tag) {
    case "Clear":
      map.clear()
      return
    case "Put":
      map.set(operation.id, operation.row)
      return
    case "Remove":
      map.delete(operation.id)
      return
    default: {
      const row = map.get(operation.id) ?? (operation._tag === "Move" ? map.get(operation.from.id) : undefined)
      if (operation._tag === "Move") map.delete(operation.from.id)
      if (row !== undefined) map.set(operation.id, over(row, operation.row))
    }
  }
}

/**
 * Rows in a `Map`, by `Table.idOf` their key. As long as the process: fill it anew at each start, `snapshot: "only"` and then a
 * stream, or keep the slot temporary.
 *
 * @example
 * const orders = new Map<string, Table.Row<typeof Orders>>()
 * const keep = Table.applyTo(Orders, Table.inMap(orders))
 */
export const inMap =
  <T extends Any>(map: Map<string, Row<T>>): Write<T> =>
  (operations) =>
    Effect.sync(() => {
      for (const operation of operations) change(map, operation)
    })

/** What is stored is no row of the table, or a row cannot be stored. Holds nothing of it. */
export class StoredRowMismatch extends Schema.TaggedError<StoredRowMismatch>("@replicant/core/StoredRowMismatch")(
  "StoredRowMismatch",
  {
    table: Schema.String,
    /** `decode`: what is there. `encode`: what is to be. */
    during: Schema.Literals(["decode", "encode"])
  }
) {
  get remedy(): string {
    return this.during === "decode"
      ? "it was stored under another Schema: fill the store anew, or declare what is new in the table as optional"
      : "give the table a Schema that encodes what it decodes"
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    return this.during === "decode"
      ? `what is stored of ${this.table} does not fit its Schema`
      : `a row of ${this.table} cannot be encoded by its Schema`
  }
}

/** A table whose rows can be encoded, without services: what is stored as text is. */
export type Storable = Any & { readonly rowSchema: Schema.ConstraintEncoder<unknown> }

/** Where in a `KeyValueStore`. */
export interface KeyValueOptions {
  /** Before each id: the table's name and `/` unless told otherwise. Nothing else has it, since it is what a `Clear` removes. */
  readonly prefix?: string | undefined
  /** How many entries are written at a time: 16. */
  readonly concurrency?: number | undefined
}

/** A table in a `KeyValueStore`. */
export interface KeptValues<T extends Any> {
  readonly write: Write<T, KeyValueStoreError | StoredRowMismatch>
  /** The row of this key. */
  readonly get: (key: KeyRow<T>) => Effect.Effect<Option.Option<Row<T>>, KeyValueStoreError | StoredRowMismatch>
}

/**
 * Rows as JSON in Effect's `KeyValueStore`: in memory, a directory, a SQL table, or Redis. An entry a row, by `Table.idOf` its key
 * behind the prefix.
 *
 * @example
 * const orders = yield* Table.inKeyValueStore(Orders)
 * yield* withLogicalStream(options, Table.handler([Orders], Handler.durable(Table.applyTo(Orders, orders.write))))
 */
export const inKeyValueStore = <T extends Storable>(
  table: T,
  { concurrency = 16, prefix = `${table.name}/` }: KeyValueOptions = {}
): Effect.Effect<KeptValues<T>, never, KeyValueStore> =>
  Effect.map(KeyValueStore, (store) => {
    const codec = Schema.fromJsonString(Schema.toCodecJson(table.rowSchema))
    const mismatch = (during: "decode" | "encode") => () =>
      Effect.fail(new StoredRowMismatch({ table: table.name, during }))
    const encode = (row: Row<T>) => Effect.catch(Schema.encodeUnknownEffect(codec)(row), mismatch("encode"))
    const decode = (text: string) =>
      Effect.catch(Schema.decodeUnknownEffect(codec)(text), mismatch("decode")) as Effect.Effect<
        Row<T>,
        StoredRowMismatch
      >
    const set = (id: string, row: Row<T>) =>
      Effect.flatMap(encode(row), (text) => store.set(prefix + id, text as string))
    const patch = (id: string, text: string | undefined, columns: object) =>
      text === undefined ? Effect.void : Effect.flatMap(decode(text), (row) => set(id, over<T>(row, columns as never)))
    const change = Effect.fnUntraced(function* (operation: Operation<T>) {
      if (operation._tag === "Clear") return yield* store.clearPrefix(prefix)
      const { id } = operation
      if (operation._tag === "Put") return yield* set(id, operation.row)
      if (operation._tag === "Remove") return yield* store.remove(prefix + id)
      const there = yield* store.get(prefix + id)
      if (operation._tag === "Patch") return yield* patch(id, there, operation.row)
      // First what is new, then away with what was: whoever is killed in between finds both, and does it again.
      yield* patch(id, there ?? (yield* store.get(prefix + operation.from.id)), operation.row)
      yield* store.remove(prefix + operation.from.id)
    })
    return {
      write: Effect.fnUntraced(function* (operations: NonEmptyReadonlyArray<Operation<T>>) {
        const [first, ...others] = operations
        yield* change(first)
        yield* Effect.forEach(others, change, { concurrency, discard: true })
      }),
      get: (key) =>
        Effect.flatMap(store.get(prefix + idOf(table, key)), (text) =>
          text === undefined ? Effect.succeedNone : Effect.asSome(decode(text))
        )
    }
  })
