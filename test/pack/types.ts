/** What a user's program imports, type-checked against the tarballs under each resolution; it runs, too. */
import { NodeServices } from "@effect/platform-node"
import { Lsn, type ReplicationError, ReplicationSlot, SlotNotFound } from "@replicant/core"
import { type CopyBoth, Frames, WalSender } from "@replicant/core/driver"
import { Sink } from "@replicant/core/sink"
import { message, TestWalSender, tx, type Written } from "@replicant/core/testing"
import { NatsSink } from "@replicant/nats"
import * as Replicant from "@replicant/node"
import { PgServer, type PgServerFailed } from "@replicant/node/testing"
import { RedisSink } from "@replicant/redis"
import { Effect, type Layer } from "effect"

const lsn: Lsn.Lsn | undefined = Lsn.fromString("16/B374D848")
const error: ReplicationError = new SlotNotFound({ slot: "orders" })
const layer: Layer.Layer<PgServer, PgServerFailed> = PgServer.layer({ settings: { wal_sender_timeout: "2s" } })
const program = Effect.gen(function* () {
  const server = yield* PgServer
  return yield* server.query("SELECT 1")
}).pipe(Effect.provide(layer), Effect.provide(NodeServices.layer))

const written: Effect.Effect<ReadonlyArray<Written>> = Effect.gen(function* () {
  const server = yield* TestWalSender
  return yield* server.write(tx(message("prefix", "content")))
}).pipe(Effect.provide(TestWalSender.layer({ slot: "orders" })))
const [transaction] = Effect.runSync(written)

// @ts-expect-error an LSN is not just any bigint
const wrong: Lsn.Lsn = 1n

// @ts-expect-error nor are the bytes of a connection just anything
const bytes: CopyBoth = { pull: 1 }

const print = (...words: ReadonlyArray<unknown>) => process.stdout.write(`${words.join(" ")}\n`)
print(
  lsn,
  error.message,
  typeof program,
  typeof ReplicationSlot,
  Object.keys(Replicant).length > 0,
  wrong,
  typeof bytes
)
print(
  transaction?._tag,
  typeof Frames,
  typeof WalSender,
  typeof Sink.run,
  typeof RedisSink.layer,
  typeof NatsSink.layer
)
