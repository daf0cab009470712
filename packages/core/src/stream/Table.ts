/**
 * Declared tables on a stream: what `table/` decides, carried out. The public module `Table`.
 *
 * Arrays stay whole, and one loop decodes each. What came before a failure is handed over first, so that it can be
 * finished and acknowledged.
 */
import type * as Stream from "effect/Stream"
import type { Change } from "../change/Change.ts"
import type { ChangeAfterSnapshot } from "../snapshot/SnapshotChange.ts"
import type { Any } from "../table/Table.ts"
import type { TableError } from "../table/TableError.ts"
import type { OnMismatch } from "../table/TypedChange.ts"
import type { TypedOptions } from "../table/TypedChanges.ts"
import { before, type Handler, type Input } from "./Handler.ts"
import { readStream } from "./Reader.ts"
import { readerOf, type TypedOf } from "./TypedSnapshot.ts"

export {
  alterPublication,
  type CheckPublicationOptions,
  checkPublication,
  createPublication
} from "../server/TablePublication.ts"
export * from "../table/DeclarationMismatch.ts"
export type { TablePublicationOptions } from "../table/PublicationCommand.ts"
export * from "../table/Table.ts"
export * from "../table/TableError.ts"
export type { TableName } from "../table/TableName.ts"
export type * from "../table/TypedChange.ts"
export { decoder, type TypedOptions } from "../table/TypedChanges.ts"
export type { TypedOf, TypedSnapshotRow, TypedSnapshotRowDeleted, UntypedSnapshotRow } from "./TypedSnapshot.ts"

/**
 * A stream of changes as a stream of the typed changes of these tables. Changes of other tables are dropped; `Begin`,
 * `Commit`, `Message` and their kin pass, and so does what marks a snapshot.
 *
 * @example
 * const { acknowledgeChange, changes } = yield* Replication.Replication
 * yield* changes.pipe(
 *   Table.changes([Orders, Customers]),
 *   Stream.runForEach((change) => Effect.andThen(store(change), acknowledgeChange(change)))
 * )
 */
export const changes =
  <T extends Any, Policy extends OnMismatch = "fail">(tables: ReadonlyArray<T>, options?: TypedOptions<Policy>) =>
  <C extends ChangeAfterSnapshot, E, R>(
    self: Stream.Stream<C, E, R>
  ): Stream.Stream<TypedOf<C, T, Policy>, E | TableError, R> =>
    readStream(readerOf<C, T, Policy>(tables, options))(self)

/**
 * A handler of typed changes as one of whatever a stream delivers: of rows as well, where there is a snapshot. It is given
 * nothing of other tables. What came before a row that does not fit is handed over, and what is acknowledged of it counts.
 *
 * @example
 * withLogicalStream(options, Table.handler([Orders], (change) => store(change).pipe(Effect.as(nextLsn(change)))))
 *
 * @example
 * withLogicalStream(options, Table.handler([Orders, Customers], Handler.durable((changes) => storeAll(changes))))
 */
export const handler: {
  <T extends Any, C extends ChangeAfterSnapshot = Change, E = never, R = never>(
    tables: ReadonlyArray<T>,
    handle: Input<TypedOf<C, T, "untyped">, E, R>,
    options: TypedOptions<"untyped">
  ): Handler<C, E | TableError, R>
  <T extends Any, C extends ChangeAfterSnapshot = Change, E = never, R = never>(
    tables: ReadonlyArray<T>,
    handle: Input<TypedOf<C, T>, E, R>,
    options?: TypedOptions<"fail">
  ): Handler<C, E | TableError, R>
} = <T extends Any, C extends ChangeAfterSnapshot, E, R, Policy extends OnMismatch>(
  tables: ReadonlyArray<T>,
  handle: Input<TypedOf<C, T, Policy>, E, R>,
  options?: TypedOptions<Policy>
): Handler<C, E | TableError, R> => before(readerOf<C, T, Policy>(tables, options), handle)
