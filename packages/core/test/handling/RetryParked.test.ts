/** Letters that are tried again by the handler that parked them: in order of their rows, and nothing lost whatever breaks. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import {
  type Change,
  DeadLetters,
  Handler,
  type Insert,
  LogicalStream,
  Pgoutput,
  Table,
  withLogicalStream
} from "@replicant/core"
import { insert, relation, TestWalSender, tx, update } from "@replicant/core/testing"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { sqliteClient } from "../support/sqliteClient.ts"
import { connect, item, moved, rowOf, Transactions } from "./delivering.ts"

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

const isPoison = (_: Refused) => true
const items = relation("public.items", { columns: { id: "int4", at: "int4" }, key: ["id"] })
const options = { slot: "items", plugin: Pgoutput.make({ publications: ["items"] }) }
const server = TestWalSender.layer({ slot: "items", publications: ["items"] })
/** More than a hundred are an outage, which is not what these are about. */
const breaker = { letters: 1_000_000, within: "1 second" } as const

/** Waits until that is so, for ten minutes of the test's clock. */
const until = Effect.fnUntraced(function* <R>(isSo: Effect.Effect<boolean, unknown, R>) {
  for (let round = 0; round < 1200; round++) {
    if (yield* Effect.orDie(isSo)) return
    yield* TestClock.adjust("500 millis")
    yield* Effect.forEach(Array.from({ length: 30 }), () => Effect.yieldNow)
  }
  assert.fail("it does not come to that")
})

const letters = Effect.flatMap(DeadLetters.DeadLetters, ({ list }) => list)
const retry = (...names: ReadonlyArray<DeadLetters.LetterName>) =>
  Effect.flatMap(DeadLetters.DeadLetters, (store) => store.retry(names))

/** A handler that refuses what `refused` says, and notes the rest. */
const refusing = (refused: (row: { readonly id: number; readonly at: number }) => boolean) => {
  const handled: Array<string> = []
  const parked = Handler.park({ isPoison, breaker }, (change: Handler.HandedOf<Change>) =>
    Effect.suspend(() => {
      const row = rowOf(change) as { readonly id: number; readonly at: number }
      if (refused(row)) return new Refused({ message: `no ${row.id}` })
      handled.push(`${row.id}@${row.at}`)
      return Effect.void
    })
  )
  return {
    handled,
    handler: Handler.retryParked(
      parked,
      Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 4 }, parked)
    ),
    parked
  }
}

describe("Handler.retryParked", () => {
  it.effect("tries what is marked while the stream is quiet, then what waits behind it, and nothing else", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      let isMended = false
      const { handled, handler } = refusing(({ at, id }) => at === 1 && (id === 2 || !isMended))
      const fiber = yield* Effect.forkChild(withLogicalStream(options, handler))
      yield* source.awaitStreaming
      yield* source.write(
        tx(insert(items, { id: 1, at: 1 }), insert(items, { id: 2, at: 1 }), insert(items, { id: 3, at: 0 })),
        tx(update(items, { id: 1, at: 2 }), update(items, { id: 1, at: 3 }), update(items, { id: 2, at: 2 }))
      )
      yield* until(Effect.map(letters, ({ length }) => length === 5))
      assert.deepStrictEqual(handled, ["3@0"])
      // Nobody has decided anything: nothing is tried, however long that lasts.
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(handled, ["3@0"])
      isMended = true
      const failed = (yield* letters).filter(({ state }) => state === "failed")
      assert.lengthOf(failed, 2)
      yield* retry(...failed)
      yield* until(Effect.map(letters, ({ length }) => length === 2))
      assert.deepStrictEqual(handled, ["3@0", "1@1", "1@2", "1@3"])
      const left = yield* letters
      assert.deepStrictEqual(
        left.map(({ attempts, cause, state }) => [cause.tag, attempts, state]),
        [
          ["Refused", 2, "failed"],
          ["Follows", 0, "waiting"]
        ]
      )
      // What is dropped never comes; what waited behind it does.
      yield* Effect.flatMap(DeadLetters.DeadLetters, ({ drop }) => drop([left[0]!]))
      yield* until(Effect.map(letters, ({ length }) => length === 0))
      assert.deepStrictEqual(handled.slice(4), ["2@2"])
      yield* source.write(tx(update(items, { id: 1, at: 4 })))
      yield* until(Effect.sync(() => handled.includes("1@4")))
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide([server, DeadLetters.memory]))
  )

  it.effect("is seen: in health, in an observation, and as a gauge of its slot", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      let isMended = false
      const { handler } = refusing(() => !isMended)
      const stream = yield* LogicalStream.make(options)
      const fiber = yield* Effect.forkChild(stream.run(handler))
      yield* source.awaitStreaming
      const gauge = Effect.map(Metric.snapshot, (all) =>
        all.find(({ attributes, id }) => id === "replicant_dead_letters" && attributes?.slot === "items")
      )
      yield* until(Effect.map(gauge, (found) => (found?.state as { value?: number })?.value === 0))
      yield* source.write(tx(insert(items, { id: 1, at: 1 })))
      yield* until(Effect.map(stream.observe, ({ parked }) => parked?.letters === 1))
      yield* TestClock.adjust("1 minute")
      const { reasons, status } = yield* stream.health
      assert.strictEqual(status, "degraded")
      assert.deepStrictEqual(
        reasons.map(({ code }) => code),
        ["Parked"]
      )
      assert.isAtLeast((yield* stream.observe).parked!.oldestSeconds!, 60)
      assert.deepStrictEqual((yield* gauge)?.state, { value: 1 })
      isMended = true
      yield* retry(...(yield* letters))
      yield* until(Effect.map(stream.health, (health) => health.status === "ok"))
      assert.deepStrictEqual((yield* gauge)?.state, { value: 0 })
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide([server, DeadLetters.memory]))
  )

  it.effect("does not park behind a letter what comes again from before it", () =>
    Effect.gen(function* () {
      const { handled, parked } = refusing(({ at }) => at === 2)
      const transactions = new Transactions()
      const [first, second, third] = [1, 2, 3].map((at) => transactions.of(item(1, at))[1]!) as [Change, Change, Change]
      for (const change of [first, second, third, first, second, third]) yield* parked(change as never)
      assert.deepStrictEqual(handled, ["1@1", "1@1"])
      assert.deepStrictEqual(
        (yield* letters).map(({ state }) => state),
        ["failed", "waiting"]
      )
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("holds both rows of a move while its letter is tried, and what comes meanwhile comes after it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [begun, goOn] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        let isMended = false
        const seen: Array<unknown> = []
        const parked = Handler.park({ isPoison }, (change: Handler.HandedOf<Change>) =>
          Effect.gen(function* () {
            if (!isMended) return yield* new Refused({ message: "" })
            const { at } = rowOf(change)
            seen.push(`begin ${at}`)
            if (at === 1) {
              yield* Deferred.succeed(begun, undefined)
              yield* Deferred.await(goOn)
            }
            seen.push(`end ${at}`)
          })
        )
        const { give } = yield* connect(
          Handler.retryParked(
            parked,
            Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 4 }, parked)
          )
        )
        const transactions = new Transactions()
        yield* give(transactions.of(moved(1, 2, 1)))
        yield* until(Effect.map(letters, ({ length }) => length === 1))
        isMended = true
        yield* retry(...(yield* letters))
        yield* until(Deferred.isDone(begun))
        yield* give(transactions.of(item(1, 2), item(2, 3), item(3, 4)))
        yield* until(Effect.map(letters, ({ length }) => length === 3))
        assert.deepStrictEqual(seen, ["begin 1", "begin 4", "end 4"])
        yield* Deferred.succeed(goOn, undefined)
        yield* until(Effect.map(letters, ({ length }) => length === 0))
        assert.deepStrictEqual(seen.slice(3), ["end 1", "begin 2", "end 2", "begin 3", "end 3"])
      })
    ).pipe(Effect.provide(DeadLetters.memory))
  )
})

/** A place of a test's own for a database. */
const database = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-letters-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true }))
  ),
  (directory) => join(directory, "letters.db")
)

/** The store as another process has it. */
const anew = <A, E, R>(file: string, use: Effect.Effect<A, E, R>) =>
  Effect.scoped(
    Effect.provide(
      use,
      Layer.provide(DeadLetters.sql({ table: "letters", createTable: "ifMissing" }), Layer.fresh(sqliteClient(file))),
      { local: true }
    )
  )

describe("letters of declared tables", () => {
  const declared = (size: Schema.Codec<bigint>) =>
    Table.make("public.items", Schema.Struct({ id: Schema.Number, at: Schema.DateFromString, size }), { key: ["id"] })
  const strict = declared(Schema.BigInt.check(Schema.isLessThanBigInt(10n)))
  const lenient = declared(Schema.BigInt)
  const source = relation("public.items", { columns: { id: "int4", at: "date", size: "int8" }, key: ["id"] })

  type Delivered = Table.TypedOf<Change, typeof strict, "untyped">
  type Handed = Handler.HandedOf<Delivered>

  const key = (change: Handler.RowOf<Handed>): string => {
    const row = change._tag === "Untyped" ? (change.change as Insert).row : change._tag === "Delete" ? {} : change.row
    return String(row.id)
  }

  /** Handles what fits, and refuses what `refused` says. */
  const program = (table: typeof strict, refused: ReadonlyArray<number>, handled: Array<unknown>) => {
    const parked = Handler.park({ isPoison, key, tables: [table] }, (change: Handler.FittingOf<Handed>) =>
      Effect.suspend(() => {
        if (change._tag !== "Insert") return Effect.void
        if (refused.includes(change.row.id)) return new Refused({ message: "" })
        handled.push(change.row)
        return Effect.void
      })
    )
    return withLogicalStream(
      options,
      Table.handler(
        [table],
        Handler.retryParked(
          parked,
          Handler.byKey<Delivered, unknown, DeadLetters.DeadLetters>({ concurrency: 1, key }, parked)
        ),
        {
          onMismatch: "untyped"
        }
      )
    )
  }

  it.effect(
    "park what does not fit, and read it by the Schema of the day; values of a Schema come back as they were",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const file = yield* database
          const origin = yield* TestWalSender
          const handled: Array<unknown> = []
          const parkedAs = yield* anew(
            file,
            Effect.gen(function* () {
              const fiber = yield* Effect.forkChild(program(strict, [2], handled))
              yield* origin.awaitStreaming
              yield* origin.write(
                tx(
                  insert(source, { id: 1, at: "2020-01-01", size: 99n }),
                  insert(source, { id: 2, at: "2021-02-03", size: 2n }),
                  insert(source, { id: 3, at: "2022-01-01", size: 3n })
                )
              )
              yield* until(Effect.map(letters, ({ length }) => length === 2))
              yield* until(Effect.sync(() => handled.length === 1))
              yield* Fiber.interrupt(fiber)
              return (yield* letters).map(({ attempts, cause, kind, table }) => [cause.tag, attempts, kind, table])
            })
          )
          assert.deepStrictEqual(parkedAs, [
            ["RowMismatch", 1, "Insert", '["public","items"]'],
            ["Refused", 1, "Insert", '["public","items"]']
          ])
          handled.length = 0
          yield* anew(
            file,
            Effect.gen(function* () {
              yield* retry(...(yield* letters))
              const fiber = yield* Effect.forkChild(program(lenient, [], handled))
              yield* until(Effect.map(letters, ({ length }) => length === 0))
              yield* Fiber.interrupt(fiber)
            })
          )
          assert.deepStrictEqual(handled, [
            { id: 1, at: new Date("2020-01-01"), size: 99n },
            { id: 2, at: new Date("2021-02-03"), size: 2n }
          ])
        })
      ).pipe(Effect.provide(server))
  )
})

describe("letters and whatever breaks", () => {
  /** Whole numbers below a limit, the same in each run. */
  const numbers = (seed: number) => {
    let state = seed
    return (limit: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return Math.floor((state / 0x1_0000_0000) * limit)
    }
  }

  for (const seed of [1, 2, 3, 4]) {
    it.effect(
      `every change is handled in the order of its row, or dropped by somebody, over kills and crashes (${seed})`,
      () =>
        Effect.scoped(
          Effect.gen(function* () {
            const [file, origin, next] = [yield* database, yield* TestWalSender, numbers(seed)]
            const versions = new Map<number, number>()
            const dropped = new Set<string>()
            let isMended = false
            const bad = new Set<string>()
            const { handled, handler } = refusing(({ at, id }) => !isMended && bad.has(`${id}@${at}`) && next(4) > 0)
            const write = Effect.suspend(() => {
              const changes = Array.from({ length: 1 + next(4) }, () => {
                const id = next(6)
                const at = (versions.get(id) ?? 0) + 1
                versions.set(id, at)
                if (next(4) === 0) bad.add(`${id}@${at}`)
                return at === 1 ? insert(items, { id, at }) : update(items, { id, at })
              })
              return origin.write(tx(...changes))
            })
            /** What somebody decides, in a process of his own. */
            const decide = anew(
              file,
              Effect.gen(function* () {
                const store = yield* DeadLetters.DeadLetters
                const some = (yield* store.list).filter(({ state }) => state === "failed" && next(3) === 0)
                if (next(4) > 0) yield* store.retry(some)
                else
                  for (const letter of some.slice(0, 1)) {
                    const { change } = (yield* store.find(letter))!
                    const { at, id } = rowOf(change as Change)
                    dropped.add(`${id}@${at}`)
                    yield* store.drop([letter])
                  }
              })
            )
            for (let round = 0; round < 12; round++) {
              yield* anew(
                file,
                Effect.gen(function* () {
                  const fiber = yield* Effect.forkChild(withLogicalStream(options, handler))
                  for (let step = 0; step < 6; step++) {
                    yield* write
                    if (next(3) === 0) yield* decide
                    if (next(6) === 0) yield* origin.drop
                    if (next(8) === 0) {
                      yield* origin.crash
                      yield* origin.start
                    }
                    yield* TestClock.adjust(next(4000))
                  }
                  yield* Effect.forEach(Array.from({ length: next(200) }), () => Effect.yieldNow)
                  yield* Fiber.interrupt(fiber)
                })
              )
            }
            isMended = true
            const left = yield* anew(
              file,
              Effect.gen(function* () {
                yield* retry(...(yield* letters))
                const fiber = yield* Effect.forkChild(withLogicalStream(options, handler))
                yield* origin.awaitStreaming
                yield* until(Effect.map(letters, ({ length }) => length === 0))
                yield* until(Effect.map(origin.unconfirmed, ({ length }) => length === 0))
                yield* until(Effect.map(letters, ({ length }) => length === 0))
                yield* Fiber.interrupt(fiber)
                return yield* letters
              })
            )
            assert.deepStrictEqual(left, [])
            assert.isAbove(bad.size, 5)
            for (const [id, last] of versions) {
              const came = handled.filter((text) => text.startsWith(`${id}@`)).map((text) => Number(text.split("@")[1]))
              const wanted = Array.from({ length: last }, (_, index) => index + 1).filter(
                (at) => !dropped.has(`${id}@${at}`)
              )
              const first = [...new Set(came)]
              assert.includeMembers(first, wanted, `row ${id}: lost`)
              const kept = first.filter((at) => !dropped.has(`${id}@${at}`))
              assert.deepStrictEqual(kept, wanted, `row ${id}: out of order`)
              const end = came.filter((at) => !dropped.has(`${id}@${at}`)).at(-1)
              assert.strictEqual(end, wanted.at(-1), `row ${id}: an earlier state came last: ${came}`)
            }
          })
        ).pipe(Effect.provide(server))
    )
  }
})
