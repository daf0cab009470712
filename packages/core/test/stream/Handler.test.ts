/** Handlers as values: made for each connection, in a scope that ends with it. */
import { assert, describe, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ConnectionError } from "../../src/ReplicationError.ts"
import type { SnapshotError } from "../../src/snapshot/SnapshotError.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as TransactionContext from "../../src/stream/TransactionContext.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"
import { emitted } from "../outbox/events.ts"
import { session } from "../support/taking.ts"
import * as shop from "../table/shop.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })
const row = (id: number) => tx(insert(orders, { id }))

const onServer = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  Effect.provide(test, TestWalSender.layer({ slot: "orders", publications: ["orders"] }))

/** Lets every fiber run as far as it can, and half a second pass. */
const settle = Effect.andThen(
  TestClock.adjust("500 millis"),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

/** Waits until `isSo`, for a minute of the test's clock. */
const until = Effect.fnUntraced(function* (isSo: () => boolean) {
  for (let round = 0; round < 120 && !isSo(); round++) yield* settle
  assert.isTrue(isSo())
})

class Broken extends Data.TaggedError("Broken") {}

describe("a handler", () => {
  it.effect("acquires for each connection what is released when that is gone", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const seen: Array<string> = []
        const note = (what: string) => Effect.sync(() => void seen.push(what))
        const sink = Handler.make((session) =>
          Effect.as(
            Effect.acquireRelease(note("BEGIN"), () => note("ROLLBACK")),
            Effect.fnUntraced(function* ({ changes }: Handler.Read<Change>) {
              for (const change of changes) {
                if (change._tag === "Insert") yield* note(`row ${change.row.id}`)
                if (change._tag !== "Commit") continue
                yield* note("commit")
                yield* session.acknowledgeThrough(nextLsn(change)!)
              }
            })
          )
        )
        const fiber = yield* Effect.forkChild(withLogicalStream(options, sink))
        yield* server.awaitStreaming
        yield* server.write(row(1))
        yield* until(() => seen.includes("commit"))
        yield* server.drop
        yield* until(() => seen.includes("ROLLBACK"))
        yield* server.write(row(2))
        yield* until(() => seen.filter((what) => what === "commit").length === 2)
        assert.deepStrictEqual(seen, ["BEGIN", "row 1", "commit", "ROLLBACK", "BEGIN", "row 2", "commit"])
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(seen.at(-1), "ROLLBACK")
      })
    )
  )

  it.effect("may hand on to a fiber of its own, whose last acknowledgement the server still hears", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const stored: Array<number> = []
        const begun = yield* Deferred.make<void>()
        /** Stores what is queued when it is left, not before. */
        const pipeline = Handler.make((session) =>
          Effect.gen(function* () {
            const queue = yield* Queue.unbounded<Change>()
            yield* Effect.forkScoped(Effect.andThen(Deferred.succeed(begun, undefined), Effect.never), {
              startImmediately: true
            })
            yield* Effect.addFinalizer(() =>
              Effect.gen(function* () {
                for (const change of yield* Queue.clear(queue)) {
                  if (change._tag === "Insert") stored.push(change.row.id as number)
                  const done = nextLsn(change)
                  if (done !== undefined) yield* Effect.orDie(session.acknowledge(done))
                }
              })
            )
            return ({ changes }: Handler.Read<Change>) => Effect.asVoid(Queue.offerAll(queue, changes))
          })
        )
        const fiber = yield* Effect.forkChild(withLogicalStream(options, pipeline))
        yield* Deferred.await(begun)
        yield* server.write(row(1), row(2))
        yield* settle
        yield* settle
        assert.strictEqual(yield* server.confirmedFlushLsn, (yield* server.slot)!.persistedLsn)
        assert.deepStrictEqual(stored, [])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(stored, [1, 2])
        assert.deepStrictEqual(yield* server.unconfirmed, [])
      })
    )
  )

  it.effect("that works ahead is held to nothing, and ends the stream at once where it says that it has failed", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const gate = yield* Deferred.make<void, Broken>()
        const given: Array<number> = []
        /** As docs/handlers.md has it. */
        const ahead = Handler.make<Change, Broken | SnapshotError>((session) =>
          Effect.gen(function* () {
            const queue = yield* Queue.bounded<ReadonlyArray<Change>>(4)
            yield* Queue.take(queue).pipe(
              Effect.flatMap((changes) => {
                const done = changes.map(nextLsn).findLast((next) => next !== undefined)
                const stored = Deferred.await(gate)
                return done === undefined ? stored : Effect.andThen(stored, session.acknowledgeThrough(done))
              }),
              Effect.forever,
              Effect.catch(session.fail),
              Effect.forkScoped
            )
            return ({ changes }) => {
              given.push(...changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id as number] : [])))
              return Effect.asVoid(Queue.offer(queue, changes))
            }
          })
        )
        const fiber = yield* Effect.forkChild(withLogicalStream(options, ahead))
        yield* server.awaitStreaming
        const written = yield* server.write(row(1))
        yield* until(() => given.length === 1)
        const more = yield* server.write(row(2))
        yield* until(() => given.length === 2)
        assert.deepStrictEqual(yield* server.unconfirmed, [...written, ...more])
        yield* Deferred.fail(gate, new Broken())
        // No other read comes: the slot is quiet.
        assert.deepStrictEqual(yield* Effect.flip(Fiber.join(fiber)), new Broken())
        assert.strictEqual(yield* server.attempts, 1)
        assert.strictEqual((yield* server.unconfirmed).length, 2)
      })
    )
  )

  it.effect("that cannot be made ends the stream with its error, which is not retried", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        // Of the kind that is retried where it is the stream's own.
        const refused = new ConnectionError({ reason: "Refused", detail: "the target" })
        const sink = Handler.make<Change, ConnectionError>(() => refused)
        assert.strictEqual(yield* Effect.flip(withLogicalStream(options, sink)), refused)
        assert.strictEqual(yield* server.attempts, 1)
      })
    )
  )
})

describe("Handler.each", () => {
  it.effect("hands over nothing more of a read once the session is over", () =>
    Effect.gen(function* () {
      const seen: Array<Change["_tag"]> = []
      const acknowledged: Array<NextLsn> = []
      const handler = Handler.each((change: Change) =>
        Effect.sync(() => {
          seen.push(change._tag)
          return nextLsn(change)
        })
      )
      const consume = yield* handler.make(session(acknowledged, { isOver: () => seen.length === 2 }))
      yield* consume({ changes: [shop.begin, shop.insert(shop.orders, shop.order), shop.commit], bytes: 0 })
      assert.deepStrictEqual(seen, ["Begin", "Insert"])
      assert.deepStrictEqual(acknowledged, [])
    })
  )
})

describe("Handler.durable", () => {
  it.effect("acknowledges the last unit of what it was given, and that beside a context as well", () =>
    Effect.gen(function* () {
      const { Request } = TransactionContext
      const acknowledged: Array<NextLsn> = []
      const actors: Array<string | undefined> = []
      const handler = TransactionContext.handler(
        Request,
        Handler.durable((changes: ReadonlyArray<TransactionContext.InContext<typeof Request.schema.Type, Change>>) =>
          Effect.sync(() => actors.push(...changes.map(({ context }) => context?.actor)))
        )
      )
      const consume = yield* handler.make(session(acknowledged))
      const set = emitted("replicant.context", '{"actor":"ada"}')
      yield* consume({ changes: [shop.begin, set, shop.insert(shop.orders, shop.order)], bytes: 0 })
      assert.deepStrictEqual(acknowledged, [], "no unit has ended")
      yield* consume({ changes: [shop.commit, shop.begin], bytes: 0 })
      assert.deepStrictEqual(
        acknowledged.map(({ lsn }) => lsn),
        [nextLsn(shop.commit)!.lsn]
      )
      assert.include(actors, "ada")
    })
  )

  it.effect("confirms nothing of what has not ended", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const gate = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(
          withLogicalStream(
            options,
            Handler.durable(() => Deferred.await(gate))
          )
        )
        yield* server.awaitStreaming
        yield* server.write(row(1))
        yield* settle
        assert.lengthOf(yield* server.unconfirmed, 1)
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        yield* settle
        yield* settle
        assert.lengthOf(yield* server.unconfirmed, 0)
        yield* Fiber.interrupt(fiber)
      })
    )
  )
})

describe("Handler.transactions", () => {
  it.effect("is refused of what is only prepared, before anything is opened", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const plugin = Pgoutput.make({ publications: ["orders"], twoPhase: true })
        const error = yield* Effect.flip(
          withLogicalStream(
            { ...options, plugin },
            Handler.transactions(() => Effect.void)
          )
        )
        assert.strictEqual(error._tag, "InvalidOption")
        assert.strictEqual(yield* server.attempts, 0)
      })
    )
  )

  it.effect("acknowledges each once it is handled, and the first that fails not at all", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const [first] = yield* server.write(row(1), row(2))
        const exit = yield* withLogicalStream(
          options,
          Handler.transactions(({ changes: [change] }) =>
            change?._tag === "Insert" && change.row.id === 2 ? new Broken() : Effect.void
          )
        ).pipe(Effect.exit)
        assert.deepStrictEqual(exit, Exit.fail(new Broken()))
        const left = yield* server.unconfirmed
        assert.lengthOf(left, 1)
        assert.isTrue((yield* server.confirmedFlushLsn) >= (first.endLsn ?? Lsn.zero))
      })
    )
  )
})
