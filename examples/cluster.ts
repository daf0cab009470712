/**
 * For who runs effect/cluster anyway: the stream is a singleton of the cluster, which says where it had best run, and holds the
 * slot's lease, which says that nobody else does. `node examples/cluster.ts <port of this runner>`, as often as you like.
 */
import { NodeClusterSocket, NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { LogicalStream, nextLsn, Pgoutput, SlotLease } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, Layer, Option, Schedule } from "effect"
import { RunnerAddress, Singleton } from "effect/cluster"

const follow = Effect.gen(function* () {
  const orders = yield* LogicalStream.make({
    slot: "orders_cluster",
    plugin: Pgoutput.make({ publications: ["orders"] })
  })
  const handler = orders.run((change) => Effect.as(Effect.log(change._tag), nextLsn(change)))
  yield* SlotLease.withLease({ slot: "orders_cluster" }, handler)
})

// One that fails is neither started anew by the cluster nor told of.
const Orders = Singleton.make(
  "orders",
  follow.pipe(Effect.tapError(Effect.logError), Effect.retry(Schedule.spaced("5 seconds")))
)

const Cluster = NodeClusterSocket.layer({
  shardingConfig: {
    runnerAddress: Option.some(RunnerAddress.make("localhost", Number(process.argv[2] ?? 34431))),
    // Out of the box another runner takes over half a minute after this one was killed.
    shardLockExpiration: "6 seconds",
    shardLockRefreshInterval: "2 seconds",
    refreshAssignmentsInterval: "1 second",
    runnerHealthCheckInterval: "3 seconds"
  }
}).pipe(Layer.provide(PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") })))

Layer.launch(Layer.provide(Orders, [Cluster, PgWalSender.layerConfig])).pipe(NodeRuntime.runMain)
