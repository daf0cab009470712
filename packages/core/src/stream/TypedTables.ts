/**
 * Declared tables on a stream: what `table/` decides, carried out. The public module `Table`.
 *
 * Arrays stay whole, and one loop decodes each. What came before a failure is handed over first, so that it can be
 * finished and acknowledged.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Change } from "../change/Change.ts"
import type { Any } from "../table/Table.ts"
import type { TableError } from "../table/TableError.ts"
import type { OnMismatch, TypedChange } from "../table/TypedChange.ts"
import { TypedChanges, type TypedOptions } from "../table/TypedChanges.ts"
import { readArrays, readEach, readStream } from "./ChangeArrays.ts"

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

/**
 * A stream of changes as a stream of the typed changes of these tables. Changes of other tables are dropped; `Begin`,
 * `Commit`, `Message` and their kin pass.
 *
 * @example
 * const replication = yield* Replication.Replication
 * yield* replication.changes.pipe(
 *   Table.changes([Orders, Customers]),
 *   Stream.runForEachArray((changes) => store(changes))
 * )
 */
export const changes =
  <T extends Any, Policy extends OnMismatch = "fail">(tables: ReadonlyArray<T>, options?: TypedOptions<Policy>) =>
  <E, R>(self: Stream.Stream<Change, E, R>): Stream.Stream<TypedChange<T, Policy>, E | TableError, R> =>
    readStream(() => new TypedChanges(tables, options))(self)

/**
 * A handler of typed changes as one for `withLogicalStream`. It is not called for changes of other tables.
 *
 * @example
 * withLogicalStream(options, Table.handler([Orders], (change) => store(change).pipe(Effect.as(nextLsn(change)))))
 */
export const handler = <T extends Any, A, E, R, Policy extends OnMismatch = "fail">(
  tables: ReadonlyArray<T>,
  handle: (change: TypedChange<T, Policy>) => Effect.Effect<A, E, R>,
  options?: TypedOptions<Policy>
): ((change: Change) => Effect.Effect<A | undefined, E | TableError, R>) =>
  readEach(new TypedChanges(tables, options), handle)

/**
 * A handler of arrays of typed changes as one for `withLogicalStreamArray`. It is not called where nothing is left. When a
 * row does not fit it is given what came before; that is delivered again, as a failed call acknowledges nothing.
 *
 * @example
 * withLogicalStreamArray(options, Table.arrayHandler([Orders, Customers], (changes) => storeAll(changes)))
 */
export const arrayHandler = <T extends Any, A, E, R, Policy extends OnMismatch = "fail">(
  tables: ReadonlyArray<T>,
  handle: (changes: NonEmptyReadonlyArray<TypedChange<T, Policy>>) => Effect.Effect<A, E, R>,
  options?: TypedOptions<Policy>
): ((changes: ReadonlyArray<Change>) => Effect.Effect<A | undefined, E | TableError, R>) =>
  readArrays(new TypedChanges(tables, options), handle)
