import { assert, describe, it } from "@effect/vitest"
import { CheckpointStore, Handler, LogicalStream, Pgoutput, type Snapshot, Table } from "@replicant/core"
import { insert, relation, remove, type TestServerOptions, TestWalSender, tx, update } from "@replicant/core/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

const Article = Schema.Struct({ id: Schema.Number, title: Schema.String })
const Articles = Table.make("public.articles", Article, { key: ["id"] })
const ids = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index + 1)

const options = {
  slot: "index",
  plugin: Pgoutput.make({ publications: ["articles"], messages: true }),
  snapshot: "never"
} as const

/** Its keys are in the order of their numbers, and not of their letters. */
const articles = relation(Articles, { types: { id: "integer" } })

const server = (more: Partial<TestServerOptions> = {}) =>
  TestWalSender.layer({
    slot: "index",
    publications: ["articles"],
    rows: ids(25).map((id) => insert(articles, { id, title: `t${id}` })),
    ...more
  })

/** Follows into an index, and asks for the table to be read anew in chunks of four rows. */
const readAnew = Effect.fnUntraced(function* (wanted: Partial<Snapshot.RequestOptions> = {}) {
  const server = yield* TestWalSender
  const index = new Map<unknown, unknown>()
  const told: Array<string> = []
  const stream = yield* LogicalStream.make(options)
  yield* stream
    .run(
      Handler.durable((changes) =>
        Effect.sync(() => {
          for (const change of changes) {
            told.push(change._tag)
            if (change._tag === "SnapshotRow" || change._tag === "Insert" || change._tag === "Update") {
              index.set(change.row.id, change.row.title)
            }
            if (change._tag === "Delete") index.delete(change.old.row.id)
          }
        })
      )
    )
    .pipe(Effect.forkScoped)
  yield* server.awaitStreaming
  const request = yield* stream.request({ table: "public.articles", chunk: { rows: 4 }, ...wanted })
  const ended = yield* Effect.forkScoped(request.await)
  const count = (tag: string) => told.filter((other) => other === tag).length
  return { ended: Effect.andThen(TestClock.adjust("1 minute"), Fiber.join(ended)), index, count }
})

const titles = (index: ReadonlyMap<unknown, unknown>) =>
  [...index].sort(([self], [that]) => Number(self) - Number(that)).map(([, title]) => title)

describe("a table read anew over TestWalSender", () => {
  it.effect("comes in chunks by its key among the changes, and is what the table is", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const { count, ended, index } = yield* readAnew()
      yield* server.write(tx(update(articles, { id: 3, title: "tea" }), remove(articles, { id: 25 })))
      const completed = yield* ended
      assert.strictEqual(completed.rows, 24)
      assert.strictEqual(count("SnapshotRow"), 24)
      assert.deepStrictEqual(
        titles(index),
        ids(24).map((id) => (id === 3 ? "tea" : `t${id}`))
      )
      // The last chunk is behind the last row: marks stand in the WAL, and where they stood rows were handed over.
      assert.isAbove((yield* server.queries).filter((text) => text.includes("pg_logical_emit_message")).length, 6)
    }).pipe(Effect.provide(server()))
  )

  it.effect("is what the table is behind whatever row the reading breaks off, also where the stream breaks then", () =>
    Effect.forEach(ids(24), (rows) =>
      Effect.gen(function* () {
        const server = yield* TestWalSender
        yield* server.breakCopyAfter(rows)
        const { ended, index } = yield* readAnew()
        yield* server.awaitBroken
        if (rows % 3 === 0) yield* server.drop
        yield* server.write(tx(update(articles, { id: 3, title: "tea" }), remove(articles, { id: 25 })))
        yield* ended
        const expected = ids(24).map((id) => (id === 3 ? "tea" : `t${id}`))
        assert.deepStrictEqual(titles(index), expected, `broken behind ${rows} rows`)
      }).pipe(Effect.provide([server(), CheckpointStore.memory]), Effect.scoped)
    )
  )

  it.effect("goes by a key of several columns in the order of each", () =>
    Effect.gen(function* () {
      const { ended, index } = yield* readAnew()
      yield* ended
      assert.strictEqual(index.size, 30)
    }).pipe(
      Effect.provide(
        server({
          rows: ids(30).map((id) => {
            const columns = { region: "text", id: "bigint", title: "text" }
            const table = relation("public.articles", { columns, key: ["region", "id"] })
            return insert(table, { region: id % 2 === 0 ? "no'r\\th" : "south", id: BigInt(id), title: `t${id}` })
          })
        })
      )
    )
  )

  it.effect("a condition in SQL is refused by name, as there is no SQL here", () =>
    Effect.gen(function* () {
      const { ended } = yield* readAnew({ where: "length(title) > 2" })
      const error = yield* Effect.flip(ended)
      assert.include(error.message, "length(title) > 2")
    }).pipe(Effect.provide(server()))
  )
})
