import { assert, it } from "@effect/vitest"
import { nextLsn, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"

it.live("every row comes, though the connection breaks in the middle of the transaction", () =>
  Effect.gen(function* () {
    const postgres = yield* PgServer.make()
    yield* postgres.query("CREATE TABLE orders (id int PRIMARY KEY); CREATE PUBLICATION orders FOR TABLE orders")
    yield* postgres.query("SELECT pg_create_logical_replication_slot('orders', 'pgoutput')")
    yield* postgres.query("INSERT INTO orders SELECT generate_series(1, 5000)")

    const proxy = yield* FaultProxy.make(postgres)
    yield* proxy.cutEach({ after: (n) => (n === 1 ? 100_000 : undefined), ending: "rst" })

    const ids = new Set<unknown>()
    const follow = withLogicalStream(
      { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) },
      (change) => {
        if (change._tag === "Insert") ids.add(change.row.id)
        return change._tag === "Commit" ? Effect.fail("done") : Effect.succeed(nextLsn(change))
      }
    )
    const { host, port } = proxy
    const layer = PgWalSender.layer({ url: Redacted.make(postgres.url()), host, port, sslmode: "disable" })
    yield* Effect.flip(Effect.provide(follow, layer))
    assert.strictEqual(ids.size, 5000)
    assert.strictEqual(yield* proxy.accepted, 2)
  })
)
