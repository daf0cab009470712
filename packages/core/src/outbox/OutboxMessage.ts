/**
 * A logical message as writer and reader agree on it: a prefix, and a Schema for its content. Declaring one asks nothing of
 * the server; `EmitStatement.ts` writes one, `OutboxChanges.ts` reads them.
 */
import type * as Schema from "effect/Schema"

/** What can describe a message: a Schema that encodes and decodes without services. On the wire it is JSON. */
export type MessageSchema = Schema.ConstraintCodec<unknown, unknown>

/** A declared message. Its type parameters are the prefix, which tells messages apart, and the Schema. */
export interface OutboxMessage<out Prefix extends string, out S extends MessageSchema> {
  /** The `prefix` of `pg_logical_emit_message`. */
  readonly prefix: Prefix
  readonly schema: S
}

/** Any declared message. */
export type Any = OutboxMessage<string, MessageSchema>

/** What a declared message says. */
export type Value<M extends Any> = M["schema"]["Type"]

/**
 * Declares a message. The Schema may have any type that {@link Schema.toCodecJson} knows a JSON form of: a `Date`, a bigint
 * and bytes come back as what they were.
 *
 * @example
 * const OrderPlaced = Outbox.make("orders.placed", Schema.Struct({ id: Schema.BigInt, placedAt: Schema.Date }))
 */
export const make = <const Prefix extends string, S extends MessageSchema>(
  prefix: Prefix,
  schema: S
): OutboxMessage<Prefix, S> => ({ prefix, schema })
