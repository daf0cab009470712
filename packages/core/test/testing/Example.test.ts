import { assert, it } from "@effect/vitest"
import { changeId, nextLsn, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { insert, TestWalSender, tx } from "@replicant/core/testing"
import { Context, Effect, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, email: Schema.String }), { key: ["id"] })

class Mailer extends Context.Service<
  Mailer,
  { readonly send: (key: string, to: string) => Effect.Effect<void, "busy"> }
>()("Mailer") {}

/** The program under test: a mail for each order, tried again while the mail server is busy. */
const confirmOrders = withLogicalStream(
  { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) },
  Table.handler([Orders], (change) =>
    Effect.gen(function* () {
      if (change._tag === "Insert") {
        const mailer = yield* Mailer
        yield* Effect.retry(mailer.send(changeId(change), change.row.email), Schedule.exponential("1 second"))
      }
      return nextLsn(change)
    })
  )
)

it.effect("each order gets its mail, though the mail server is busy and the connection breaks", () =>
  Effect.gen(function* () {
    const server = yield* TestWalSender
    const sent = new Map<string, string>()
    let tries = 0
    const mailer = Mailer.of({
      send: (key, to) =>
        Effect.suspend(() => (++tries < 3 ? Effect.fail("busy") : Effect.sync(() => sent.set(key, to))))
    })
    yield* confirmOrders.pipe(Effect.provideService(Mailer, mailer), Effect.forkChild)

    const [first] = yield* server.write(tx(insert(Orders, { id: 1, email: "ada@example.org" })))
    yield* TestClock.adjust("1 second")
    assert.strictEqual(tries, 2)
    assert.deepStrictEqual(yield* server.unconfirmed, [first])

    // The connection breaks while the handler waits for its third try; it goes on, and its result counts.
    yield* server.drop
    const [second] = yield* server.write(tx(insert(Orders, { id: 2, email: "bob@example.org" })))
    yield* TestClock.adjust("2 seconds")
    assert.deepStrictEqual([...sent.values()], ["ada@example.org"])

    // Its commit had not come yet: on the next connection the first order comes again, under the same key.
    yield* TestClock.adjust("2 seconds")
    yield* server.awaitConfirmed
    assert.deepStrictEqual([...sent.values()], ["ada@example.org", "bob@example.org"])
    assert.strictEqual(tries, 5)
    assert.strictEqual(yield* server.confirmedFlushLsn, second.endLsn)
  }).pipe(Effect.provide(TestWalSender.layer({ slot: "orders", publications: ["orders"] })))
)
