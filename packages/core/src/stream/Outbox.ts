/**
 * The transactional outbox, without a table: messages that a program writes into the WAL beside its rows, in one
 * transaction, and reads from the stream by the Schema they were written with. The public module `Outbox`.
 *
 * Nothing is stored that would have to be deleted again. A message lives as long as the WAL does: what every slot of the
 * database has confirmed is gone.
 */
import * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Change } from "../change/Change.ts"
import { type EmitOptions, type EmitStatement, statement } from "../outbox/EmitStatement.ts"
import type { MessageMismatch, UnencodableMessage } from "../outbox/MessageError.ts"
import {
  type OnMismatch,
  type OutboxChange,
  OutboxChanges,
  type OutboxOptions,
  type Tagged
} from "../outbox/OutboxChanges.ts"
import { type Any, type MessageSchema, make, type OutboxMessage } from "../outbox/OutboxMessage.ts"
import { before, type Handler, type Input } from "./Handler.ts"
import { readStream } from "./Reader.ts"

export * from "../outbox/EmitStatement.ts"
export * from "../outbox/MessageError.ts"
export type {
  DecodedMessage,
  OnMismatch,
  OtherMessage,
  OutboxChange,
  OutboxOptions,
  Tagged,
  UndecodedMessage
} from "../outbox/OutboxChanges.ts"
export { decoder } from "../outbox/OutboxChanges.ts"
export * from "../outbox/OutboxMessage.ts"

/** Runs one statement in a transaction of the caller's. What it gives is not looked at. */
export type Query<E, R> = (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<unknown, E, R>

const viaSqlClient = ({ params, sql }: EmitStatement): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (client) => Effect.asVoid(client.unsafe(sql, params).raw))

/** Writes a value of a message through effect's `SqlClient`. */
export type Emit<S extends MessageSchema> = (
  value: S["Type"]
) => Effect.Effect<void, UnencodableMessage | SqlError, SqlClient.SqlClient>

/**
 * Writes a message through effect's `SqlClient`, in the transaction that it is called in: `sql.withTransaction` around both
 * the rows and the message makes them one. Outside of any it is a transaction by itself. A value that does not encode fails
 * before anything is sent.
 *
 * @example
 * sql.withTransaction(
 *   Effect.gen(function* () {
 *     yield* sql`INSERT INTO orders ${sql.insert(order)}`
 *     yield* Outbox.emit(OrderPlaced)({ id: order.id, placedAt })
 *   })
 * )
 *
 * @example
 * Outbox.emit("cache.flush", Schema.String)("orders")
 */
export const emit: {
  <S extends MessageSchema>(message: OutboxMessage<string, S>, options?: EmitOptions): Emit<S>
  <S extends MessageSchema>(prefix: string, schema: S, options?: EmitOptions): Emit<S>
} = <S extends MessageSchema>(
  message: string | OutboxMessage<string, S>,
  schemaOrOptions?: S | EmitOptions,
  options?: EmitOptions
): Emit<S> => {
  const toStatement =
    typeof message === "string"
      ? statement(make(message, schemaOrOptions as S), options)
      : statement(message, schemaOrOptions as EmitOptions | undefined)
  return (value) =>
    Effect.flatMap(
      Effect.suspend(() => Effect.fromResult(toStatement(value))),
      viaSqlClient
    )
}

/**
 * The same through a function that runs a query, for programs that speak to PostgreSQL by other means. It must run in the
 * transaction that the message belongs to.
 *
 * @example
 * const query = (sql: string, params: ReadonlyArray<unknown>) => Effect.tryPromise(() => client.query(sql, [...params]))
 * Outbox.emitWith(query, OrderPlaced)({ id: 1n, placedAt })
 */
export const emitWith =
  <S extends MessageSchema, E, R>(
    query: Query<E, R>,
    message: OutboxMessage<string, S>,
    options?: EmitOptions
  ): ((value: S["Type"]) => Effect.Effect<void, UnencodableMessage | E, R>) =>
  (value) =>
    Effect.suspend(() => Effect.fromResult(statement(message, options)(value))).pipe(
      Effect.flatMap(({ params, sql }) => query(sql, params)),
      Effect.asVoid
    )

/**
 * A stream of changes with these messages decoded, told apart by `message`. Everything else passes as it is, in its place:
 * so it can follow `Table.changes`, and all that can be acknowledged still can be.
 *
 * @example
 * yield* replication.changes.pipe(
 *   Outbox.messages([OrderPlaced, OrderCancelled]),
 *   Stream.runForEachArray((changes) => publish(changes))
 * )
 */
export const messages =
  <M extends Any, Policy extends OnMismatch = "fail">(set: ReadonlyArray<M>, options?: OutboxOptions<Policy>) =>
  <In extends Tagged, E, R>(
    self: Stream.Stream<In, E, R>
  ): Stream.Stream<OutboxChange<M, Policy, In>, E | MessageMismatch, R> =>
    readStream(() => new OutboxChanges<M, Policy, In>(set, options))(self)

/**
 * A handler of changes with these messages decoded, told apart by `message`, as one of whatever a stream delivers, or as one
 * for `Table.handler`. When a message does not fit it is given what came before, and what is acknowledged of that counts.
 *
 * @example
 * withLogicalStream(options, Outbox.handler([OrderPlaced], (change) =>
 *   change._tag === "Message" && change.message === "orders.placed"
 *     ? Effect.as(publish(change.value), nextLsn(change))
 *     : Effect.succeed(nextLsn(change))
 * ))
 */
export const handler: {
  <M extends Any, In extends Tagged = Change, E = never, R = never>(
    set: ReadonlyArray<M>,
    handle: Input<OutboxChange<M, "untyped", In>, E, R>,
    options: OutboxOptions<"untyped">
  ): Handler<In, E | MessageMismatch, R>
  <M extends Any, In extends Tagged = Change, E = never, R = never>(
    set: ReadonlyArray<M>,
    handle: Input<OutboxChange<M, "fail", In>, E, R>,
    options?: OutboxOptions<"fail">
  ): Handler<In, E | MessageMismatch, R>
} = <M extends Any, In extends Tagged, E, R, Policy extends OnMismatch>(
  set: ReadonlyArray<M>,
  handle: Input<OutboxChange<M, Policy, In>, E, R>,
  options?: OutboxOptions<Policy>
): Handler<In, E | MessageMismatch, R> => before(() => new OutboxChanges<M, Policy, In>(set, options), handle)
