import { assert, describe, it } from "@effect/vitest"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Change, type NextLsn, nextLsn, Table } from "../../src/index.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { taking } from "../support/taking.ts"
import { begin, Customers, commit, insert, Orders, order, orders, others } from "../table/shop.ts"

const misfit = insert(orders, { ...order, id: "1" })
const reads: ReadonlyArray<NonEmptyReadonlyArray<Change>> = [
  [begin, insert(orders, order), insert(others, { id: 1 })],
  [insert(others, { id: 2 }), insert(others, { id: 3 })],
  [insert(orders, order), insert(orders, order), commit]
]
const streamOf = (all: ReadonlyArray<NonEmptyReadonlyArray<Change>>) =>
  Stream.fromIterable(all).pipe(Stream.rechunk(1), Stream.flattenArray)
const tags = (changes: ReadonlyArray<{ readonly _tag: string }>) => changes.map((change) => change._tag)

describe("Table.changes", () => {
  it.effect("keeps arrays whole, and leaves out those of which nothing is left", () =>
    Effect.gen(function* () {
      const arrays: Array<ReadonlyArray<string>> = []
      yield* streamOf(reads).pipe(
        Table.changes([Orders, Customers]),
        Stream.runForEachArray((changes) => Effect.sync(() => arrays.push(tags(changes))))
      )
      assert.deepStrictEqual(arrays, [
        ["Begin", "Insert"],
        ["Insert", "Insert", "Commit"]
      ])
    })
  )

  it.effect("hands over what came before a row that does not fit, and fails then", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const error = yield* streamOf([[begin, insert(orders, order), commit, begin, misfit, commit]]).pipe(
        Table.changes([Orders]),
        Stream.runForEachArray((changes) => Effect.sync(() => seen.push(...tags(changes)))),
        Effect.flip
      )
      assert.deepStrictEqual(seen, ["Begin", "Insert", "Commit", "Begin"])
      assert.strictEqual(error._tag, "RowMismatch")
    })
  )

  it.effect("passes the failures of its source on, and can be run again", () =>
    Effect.gen(function* () {
      const source = Stream.concat(streamOf(reads), Stream.fail("gone" as const)).pipe(Table.changes([Orders]))
      for (let run = 0; run < 2; run++) {
        const error = yield* Effect.flip(Stream.runDrain(source))
        assert.strictEqual(error, "gone")
      }
    })
  )
})

describe("Table.handler", () => {
  it.effect("is called for changes of the set and for commits, and gives what is to be acknowledged", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const handle = yield* taking(
        Table.handler([Orders], (change) => {
          seen.push(change._tag)
          return Effect.succeed(nextLsn(change))
        })
      )
      const done: Array<NextLsn | undefined> = []
      for (const change of reads.flat()) done.push(yield* handle(change))
      assert.deepStrictEqual(seen, ["Begin", "Insert", "Insert", "Insert", "Commit"])
      assert.deepStrictEqual(
        done.filter((next) => next !== undefined),
        [commit.nextLsn]
      )
      assert.strictEqual((yield* Effect.flip(handle(misfit)))._tag, "RowMismatch")
    })
  )
})

describe("Table.handler of arrays", () => {
  it.effect("is not called where nothing is left, and then acknowledges nothing", () =>
    Effect.gen(function* () {
      const sizes: Array<number> = []
      const handle = yield* taking(
        Table.handler(
          [Orders],
          Handler.arrays((changes) => {
            sizes.push(changes.length)
            return Effect.succeed(nextLsn(changes.at(-1)!))
          })
        )
      )
      const done = yield* Effect.forEach(reads, (read) => handle(...read))
      assert.deepStrictEqual(sizes, [2, 3])
      assert.deepStrictEqual(done, [undefined, undefined, commit.nextLsn])
    })
  )

  it.effect("gives what came before a row that does not fit, and fails whatever was made of it", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const handle = yield* taking(
        Table.handler(
          [Orders],
          Handler.durable((changes) => Effect.sync(() => seen.push(...tags(changes))))
        )
      )
      const error = yield* Effect.flip(handle(begin, insert(orders, order), commit, begin, misfit))
      assert.deepStrictEqual([seen, error._tag], [["Begin", "Insert", "Commit", "Begin"], "RowMismatch"])
      const failing = yield* taking(
        Table.handler(
          [Orders],
          Handler.arrays(() => Effect.fail("full" as const))
        )
      )
      assert.strictEqual(yield* Effect.flip(failing(begin, misfit)), "full")
    })
  )
})
