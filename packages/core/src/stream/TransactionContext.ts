/**
 * What a transaction says of itself: who did it, for which request, in which span. Written first in the transaction, as a
 * logical message, and handed over with every change of it. The public module `TransactionContext`.
 *
 * Rows need no columns for it, and a writer that does not set one disturbs nobody.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Tracer from "effect/Tracer"
import type { Change } from "../change/Change.ts"
import {
  ContextChanges,
  type ContextOptions,
  type Declared,
  type InContext,
  type RequestContext
} from "../outbox/ContextChanges.ts"
import type { MessageMismatch, UnencodableMessage } from "../outbox/MessageError.ts"
import type { Tagged } from "../outbox/OutboxChanges.ts"
import type { MessageSchema } from "../outbox/OutboxMessage.ts"
import * as TraceParent from "../outbox/TraceParent.ts"
import { readArrays, readEach, readStream } from "./ChangeArrays.ts"
import { type Emit, emit, emitWith, type Query } from "./Outbox.ts"

export {
  type ContextOptions,
  type Declared,
  defaultPrefix,
  type InContext,
  make,
  type OnMismatch,
  of,
  Request,
  RequestContext
} from "../outbox/ContextChanges.ts"

/**
 * Sets the context of the transaction that it is called in, through effect's `SqlClient`. Changes that were made before
 * do not have it, so do this first; {@link withTransaction} does. A later one replaces it from there on.
 *
 * @example
 * TransactionContext.set(TransactionContext.Request)({ actor: "ada", requestId })
 */
export const set = <S extends MessageSchema>(context: Declared<S>): Emit<S> => emit(context)

/** The same through a function that runs a query in the transaction: see `Outbox.emitWith`. */
export const setWith = <S extends MessageSchema, E, R>(
  query: Query<E, R>,
  context: Declared<S>
): ((value: S["Type"]) => Effect.Effect<void, UnencodableMessage | E, R>) => emitWith(query, context)

/**
 * Runs an effect in a transaction that begins with this context. Within another transaction, which this one then is a
 * savepoint of, the context holds until that sets its own again.
 *
 * @example
 * placeOrder(order).pipe(TransactionContext.withTransaction(TransactionContext.Request, { actor: "ada", requestId }))
 */
export const withTransaction =
  <S extends MessageSchema>(context: Declared<S>, value: S["Type"]) =>
  <A, E, R>(
    self: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | UnencodableMessage | SqlError, R | SqlClient.SqlClient> =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(Effect.andThen(set(context)(value), self)))

/**
 * A stream of changes, each beside the context of its transaction. It can follow `Table.changes` and `Outbox.messages`; the
 * message that set the context is among the changes.
 *
 * @example
 * yield* replication.changes.pipe(
 *   Table.changes([Orders]),
 *   TransactionContext.changes(TransactionContext.Request),
 *   Stream.runForEachArray((changes) => audit(changes))
 * )
 */
export const changes =
  <S extends MessageSchema>(context: Declared<S>, options?: ContextOptions) =>
  <In extends Tagged, E, R>(
    self: Stream.Stream<In, E, R>
  ): Stream.Stream<InContext<S["Type"], In>, E | MessageMismatch, R> =>
    readStream(() => new ContextChanges<S, In>(context, options))(self)

/**
 * A handler of changes in their context as one for `withLogicalStream`, or for `Table.handler` and `Outbox.handler`.
 *
 * @example
 * withLogicalStream(options, TransactionContext.handler(TransactionContext.Request, ({ context, change }) =>
 *   store(change).pipe(TransactionContext.childOf(context), Effect.as(nextLsn(change)))
 * ))
 */
export const handler = <S extends MessageSchema, A, E, R, In extends Tagged = Change>(
  context: Declared<S>,
  handle: (change: InContext<S["Type"], In>) => Effect.Effect<A, E, R>,
  options?: ContextOptions
): ((change: In) => Effect.Effect<A | undefined, E | MessageMismatch, R>) =>
  readEach(new ContextChanges<S, In>(context, options), handle)

/** The same for arrays, for `withLogicalStreamArray` and the array handlers of `Table` and `Outbox`. */
export const arrayHandler = <S extends MessageSchema, A, E, R, In extends Tagged = Change>(
  context: Declared<S>,
  handle: (changes: NonEmptyReadonlyArray<InContext<S["Type"], In>>) => Effect.Effect<A, E, R>,
  options?: ContextOptions
): ((changes: ReadonlyArray<In>) => Effect.Effect<A | undefined, E | MessageMismatch, R>) =>
  readArrays(new ContextChanges<S, In>(context, options), handle)

/**
 * This request as a {@link Request} has it: what is given, with the trace parent of the current span where there is one.
 *
 * @example
 * Effect.flatMap(TransactionContext.current({ actor: "ada" }), TransactionContext.set(TransactionContext.Request))
 */
export const current = (request: Omit<RequestContext, "traceParent"> = {}): Effect.Effect<RequestContext> =>
  Effect.match(Effect.currentParentSpan, {
    onSuccess: (span) => {
      const traceParent = TraceParent.format(span)
      return traceParent === undefined ? request : { ...request, traceParent }
    },
    onFailure: () => request
  })

/** Anything that may name the span it was made in. */
type Traced = { readonly traceParent?: string | undefined } | undefined

/** The span that a context names; `undefined` where it names none. */
export const span = (context: Traced): Tracer.ExternalSpan | undefined => {
  const identity = context?.traceParent === undefined ? undefined : TraceParent.fromString(context.traceParent)
  return identity === undefined ? undefined : Tracer.externalSpan(identity)
}

/** Makes the spans of an effect children of the one that wrote the transaction: they go on with its trace. */
export const childOf =
  (context: Traced) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const parent = span(context)
    return parent === undefined ? self : (Effect.withParentSpan(self, parent) as Effect.Effect<A, E, R>)
  }

/** Links the spans of an effect to the one that wrote the transaction: they stay in their own trace. */
export const linkedTo =
  (context: Traced) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const origin = span(context)
    return origin === undefined ? self : Effect.linkSpans(self, origin)
  }
