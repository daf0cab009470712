/** The public module `Table`: declared tables, their changes, and stores that are kept in step with them. */
export * from "../stream/Table.ts"
export { type ApplyToOptions, applyTo, TableGap, type Write } from "./ApplyTo.ts"
export {
  inKeyValueStore,
  inMap,
  type KeptValues,
  type KeyValueOptions,
  type Storable,
  StoredRowMismatch
} from "./KeyedStores.ts"
export {
  type ChangeOf,
  type Clear,
  idOf,
  type Move,
  type Operation,
  type Patch,
  type Put,
  type Remove
} from "./Operation.ts"
export { type InvalidatesOptions, invalidates, type RowChangeOf, reactivityKeys } from "./Reactive.ts"
export { inSql, type SqlStoreOptions } from "./SqlStore.ts"
export { untilVisible } from "./Visible.ts"
