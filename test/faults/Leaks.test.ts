/** Streams that are left, again and again: nothing stays behind, and nothing comes twice. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe } from "@effect/vitest"
import { Handler, type Lsn, Replication, withLogicalStream } from "@replicant/core"
import { Array, Effect, Fiber, Layer, Stream } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { confirmed, makeSlot } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"
import { rowsFrom, writeAlong } from "../support/writeAlong.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

describe("a stream that is closed amid its work", () => {
  const rounds = Number(process.env.REPLICANT_CLEAN_STOPS ?? 50)

  fault(
    "C3",
    `${rounds} times, has confirmed all that was handled, frees its slot, and delivers nothing twice`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const options = {
          ...logicalOptions(workspace),
          createSlot: undefined,
          timing: { acknowledgeDelay: "1 second" }
        } as const
        const endWriting = yield* writeAlong(workspace)
        const handled: globalThis.Array<{ readonly endLsn: Lsn.Lsn; readonly ids: ReadonlyArray<number> }> = []
        let longest = 0
        /** Streams from where the last one was, until this is true; then it is closed, whatever the handler is at. */
        const streamUntil = Effect.fnUntraced(function* (isEnough: () => boolean) {
          const fiber = yield* withLogicalStream(
            options,
            Handler.transactions(({ changes, nextLsn }) =>
              Effect.andThen(
                Effect.sleep(Math.random() * 4),
                Effect.sync(() => {
                  handled.push({ endLsn: nextLsn.lsn, ids: insertedRows(changes).map((row) => row.id as number) })
                })
              )
            )
          ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
          yield* eventually(Effect.sync(isEnough), { what: "it goes on" })
          yield* Effect.sleep(Math.random() * 30) // Not a wait: the moment at which it is closed.
          const began = performance.now()
          yield* Fiber.interrupt(fiber)
          longest = Math.max(longest, performance.now() - began)
          const slot = (yield* workspace.findSlot())!
          assert.isFalse(slot.active, "its slot is free")
          assert.isTrue((yield* confirmed(workspace)) >= handled.at(-1)!.endLsn, "all that was handled is confirmed")
        }, Effect.scoped)
        for (let round = 1; round <= rounds; round++) {
          const before = handled.length
          yield* streamUntil(() => handled.length > before)
        }
        const last = yield* endWriting
        yield* streamUntil(() => handled.some(({ ids }) => ids.includes(last)))
        assert.deepStrictEqual(
          handled.flatMap(({ ids }) => ids),
          Array.range(1, last),
          "every row once, in commit order"
        )
        for (const { ids } of handled) assert.lengthOf(ids, rowsFrom(ids[0]!), "whole transactions")
        yield* Effect.logInfo(`${rounds} stops, ${handled.length} transactions, the longest ${Math.round(longest)} ms`)
      }),
    { since: 18, timeout: 60_000 + rounds * 1000 }
  )
})

describe("round after round", () => {
  const rounds = Number(process.env.REPLICANT_LEAK_ROUNDS ?? 100)
  const looks = 5

  const collectGarbage: Effect.Effect<number> = Effect.sync(() => {
    setFlagsFromString("--expose-gc")
    runInNewContext("gc")()
    return process.memoryUsage().heapUsed
  })

  /** What keeps a process alive, by name. */
  const active = (names: RegExp) =>
    process
      .getActiveResourcesInfo()
      .filter((name) => names.test(name))
      .sort()
  const resources = () => active(/TCP|Immediate|GetAddrInfo|Pipe/)
  const timers = () => active(/Timeout/).length

  const listeners = () => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)

  fault(
    ["C3", "C7"],
    `${rounds} streams that are left at any moment leave no socket, timer, listener, walsender, slot or memory`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const session = yield* workspace.session
        yield* session.query(`INSERT INTO t SELECT generate_series(1, 300)`)
        const layer = walSender(workspace)
        const options = { ...logicalOptions(workspace), createSlot: undefined }
        const temporary = { ...options, slot: `${workspace.slot}_temporary`, createSlot: "temporary" as const }
        const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          // Interrupted at any moment, from before it is connected.
          Effect.suspend(() =>
            Effect.timeoutOption(
              withLogicalStream(options, () => Effect.undefined).pipe(Effect.provide(layer)),
              Math.random() * 40
            )
          ),
          // Left by itself after some changes.
          Replication.Replication.pipe(
            Effect.flatMap(({ changes }) => Stream.runDrain(Stream.take(changes, 10))),
            Effect.provide(Replication.layer(options).pipe(Layer.provide(layer)))
          ),
          // With a slot that goes with it.
          Effect.scoped(
            Effect.gen(function* () {
              const fiber = yield* withLogicalStream(temporary, () => Effect.undefined).pipe(
                Effect.provide(layer),
                Effect.forkScoped
              )
              yield* Effect.sleep(Math.random() * 40)
              yield* Fiber.interrupt(fiber)
            })
          )
        ]
        const settled = Effect.gen(function* () {
          yield* eventually(
            Effect.map(
              session.query(
                `SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND backend_type = 'walsender') AS senders,
                 (SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND temporary) AS slots`
              ),
              ([row]) => Number(row?.senders) === 0 && Number(row?.slots) === 0
            ),
            { what: "the server has let go as well" }
          )
        })
        const round = Effect.gen(function* () {
          yield* ways[Math.floor(Math.random() * ways.length)]!
          yield* settled
        })
        yield* Effect.repeat(round, { times: 20 }) // What is made once and kept, is made.
        const before = { resources: resources(), timers: timers(), listeners: listeners(), heap: yield* collectGarbage }
        const heaps = [before.heap]
        for (let look = 1; look <= looks; look++) {
          for (let count = 1; count <= rounds / looks; count++) yield* round
          heaps.push(yield* collectGarbage)
        }
        // What was there before may have gone since: nothing is to have come.
        const left = Effect.sync(() => {
          const known = [...before.resources]
          return resources().filter((name) => {
            const at = known.indexOf(name)
            if (at >= 0) known.splice(at, 1)
            return at < 0
          })
        })
        yield* eventually(
          Effect.map(left, (names) => names.length === 0),
          { what: "nothing is left" }
        )
        yield* eventually(
          // The test runner has some of its own, which come and go; one a round would be many.
          Effect.sync(() => timers() <= before.timers + 3 && listeners() === before.listeners),
          { what: "no timer and no listener is left" }
        )
        // What is compiled or kept once makes a heap larger now and then; what stays of each round makes it larger at every
        // look, a connection or a fiber by some 20 kB a round.
        const grown = heaps.slice(1).map((heap, look) => heap - heaps[look]!)
        const median = grown.toSorted((one, other) => one - other)[Math.floor(looks / 2)]!
        yield* Effect.logInfo(`${rounds} rounds: heap ${grown.map((bytes) => Math.round(bytes / 1024)).join(", ")} KiB`)
        assert.isBelow(median / (rounds / looks), 10_000, "bytes of heap a round")
      }),
    { since: 18, timeout: 60_000 + rounds * 500 }
  )
})
