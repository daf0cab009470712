/**
 * The names that an `@example` in a docstring may use besides the public ones and those of its own module, so that it shows
 * a call and not its surroundings: see checkExamples.ts. Pages have no such thing: what stands there is whole.
 */
import { type Insert, type LogicalStream, type NextLsn, Outbox, type Replication, Table } from "@replicant/core"
import type { OutputPlugin, ReplicantConnection } from "@replicant/core/driver"
import type { Event } from "@replicant/core/sink"
import type { Copy } from "@replicant/node"
import { Effect, type Redacted, Schema } from "effect"
import type { SqlClient } from "effect/sql"
import type { PoolClient } from "pg"

export { NodeFileSystem, NodeRedis, NodeServices } from "@effect/platform-node"
export { it } from "@effect/vitest"
export { Effect, Layer, Redacted, Result, Schedule, Schema, Stream, SubscriptionRef } from "effect"
export { Reactivity } from "effect/reactivity"
export { TestClock } from "effect/testing"

/** Tables and messages of a shop. */
export const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, total: Schema.String }), {
  key: ["id"]
})
export const Customers = Table.make("public.customers", Schema.Struct({ id: Schema.Number, email: Schema.String }), {
  key: ["id"]
})
export const OrderPlaced = Outbox.make("orders.placed", Schema.Struct({ id: Schema.BigInt, placedAt: Schema.Date }))
export const OrderCancelled = Outbox.make("orders.cancelled", Schema.Struct({ id: Schema.BigInt }))

/** What a program has at hand where it begins to follow. */
export declare const plugin: OutputPlugin.OutputPlugin
export declare const options: LogicalStream.Options
export declare const copying: Copy.Options
export declare const event: Event
export declare const connection: ReplicantConnection
export declare const replication: Replication.Replication["Service"]
export declare const stream: LogicalStream.LogicalStream<LogicalStream.Options & { readonly snapshot: "initial" }>
export declare const orders: typeof stream
export declare const password: Redacted.Redacted

/** What a program does with what it is given. */
export declare const store: (...what: ReadonlyArray<unknown>) => Effect.Effect<void>
export declare const storeAll: (changes: unknown) => Effect.Effect<NextLsn | undefined>
export declare const stage: (change: unknown) => Effect.Effect<void>
export declare const publish: (messages: unknown) => Effect.Effect<void>
export declare const publishAll: (messages: unknown) => Effect.Effect<NextLsn | undefined>
export declare const loadOrders: Effect.Effect<ReadonlyArray<unknown>>
export declare const audit: (...what: ReadonlyArray<unknown>) => Effect.Effect<void>
export declare const show: (what: unknown) => Effect.Effect<void>
export declare const handler: (change: unknown) => Effect.Effect<NextLsn | undefined>
export declare const program: (host: string, port: number) => Effect.Effect<void>
export const followOrders: Effect.Effect<void> = Effect.void

/** A target, in whose transactions a sink writes. */
export declare const target: {
  readonly begin: Effect.Effect<{ readonly write: (changes: unknown) => Effect.Effect<NextLsn> }>
  readonly rollback: () => Effect.Effect<void>
}

/** What a program writes with. */
export declare const sql: SqlClient.SqlClient
export declare const client: PoolClient
export declare const order: { readonly id: bigint; readonly total: string }
export declare const placedAt: Date
export declare const requestId: string
export declare const placeOrder: (order: unknown) => Effect.Effect<void, never, SqlClient.SqlClient>

/** What was received. */
export declare const change: Insert
export declare const Mood: { readonly parse: (text: string) => unknown }
