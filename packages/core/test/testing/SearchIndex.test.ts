/** A search index from nothing, as in `examples/search-index.ts`, over a server in memory: first copy, break, going on. */
import { assert, describe, it } from "@effect/vitest"
import { CheckpointStore, Handler, Pgoutput, type Snapshot, Table, withLogicalStream } from "@replicant/core"
import { insert, remove, type TestServerOptions, TestWalSender, truncate, tx, update } from "@replicant/core/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

const Article = Schema.Struct({ id: Schema.Number, title: Schema.String, body: Schema.NullOr(Schema.String) })
type Article = typeof Article.Type
const Articles = Table.make("public.articles", Article, { key: ["id"] })
type ArticleChange = Table.TypedOf<Snapshot.ChangeAfterSnapshot, typeof Articles>

const article = (id: number, title = `t${id}`): Article => ({ id, title, body: id % 2 === 0 ? null : `a\tb\\\n${id}` })
const ids = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index + 1)
const rows = (count: number) => ids(count).map((id) => insert(Articles, article(id)))

/** An index: a repetition changes nothing in it. */
class Index {
  readonly documents = new Map<number, Article>()
  readonly told: Array<string> = []

  apply(change: ArticleChange): void {
    this.told.push(change._tag)
    switch (change._tag) {
      case "SnapshotStarted":
      case "SnapshotTableRestarted":
      case "TableSnapshotStarted":
      case "Truncate":
        this.documents.clear()
        return
      case "SnapshotRow":
      case "Insert":
        this.documents.set(change.row.id, change.row)
        return
      case "Update": {
        const id = change.row.id ?? change.old?.row.id ?? 0
        const before = this.documents.get(change.old?.row.id ?? id)
        this.documents.delete(change.old?.row.id ?? id)
        if (before !== undefined || change.isComplete) this.documents.set(id, { ...before!, ...change.row })
        return
      }
      case "SnapshotRowDeleted":
      case "Delete":
        this.documents.delete(change.old.row.id)
        return
    }
  }

  count(tag: string): number {
    return this.told.filter((told) => told === tag).length
  }

  get content(): ReadonlyArray<Article> {
    return [...this.documents.values()].sort((self, that) => self.id - that.id)
  }
}

const options = {
  slot: "index",
  plugin: Pgoutput.make({ publications: ["articles"] }),
  snapshot: "initial",
  copy: { piecePages: 2, connections: 1 }
} as const

const follow = (index: Index, beforeEach: Effect.Effect<void> = Effect.void) =>
  withLogicalStream(
    options,
    Table.handler(
      [Articles],
      Handler.durable((changes) =>
        Effect.andThen(
          beforeEach,
          Effect.sync(() => {
            for (const change of changes) index.apply(change)
          })
        )
      )
    )
  )

const server = (more: Partial<TestServerOptions> = {}) =>
  TestWalSender.layer({ slot: "index", slotExists: "no", publications: ["articles"], rows: rows(9), ...more })

/** Until all is there that was written, and for how long it may take. */
const settle = Effect.gen(function* () {
  const server = yield* TestWalSender
  yield* Effect.forkChild(server.awaitStreaming).pipe(
    Effect.flatMap((fiber) => Effect.andThen(TestClock.adjust("30 seconds"), Fiber.join(fiber)))
  )
  yield* TestClock.adjust("2 seconds")
  yield* server.awaitConfirmed
})

describe("a search index over TestWalSender", () => {
  it.effect("has the rows that are there, then what changes", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const index = new Index()
      yield* Effect.forkScoped(follow(index))
      yield* server.awaitStreaming
      assert.deepStrictEqual(
        index.content,
        ids(9).map((id) => article(id))
      )
      yield* server.write(
        tx(update(Articles, { id: 3, title: "tea" }), remove(Articles, { id: 4 }), insert(Articles, article(10)))
      )
      yield* TestClock.adjust("1 second")
      yield* server.awaitConfirmed
      const others = [1, 2, 5, 6, 7, 8, 9, 10].map((id) => article(id))
      assert.deepStrictEqual(index.content, [
        ...others.slice(0, 2),
        { ...article(3), title: "tea" },
        ...others.slice(2)
      ])
    }).pipe(Effect.provide(server()))
  )

  it.effect("a copy that breaks off goes on where it stood, and what happened meanwhile is in it", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const index = new Index()
      yield* server.breakCopyAfter(7)
      yield* Effect.forkScoped(follow(index))
      yield* server.awaitBroken
      assert.isBelow(index.documents.size, 9)
      yield* server.write(
        tx(update(Articles, { id: 1, title: "tea" }), remove(Articles, { id: 2 }), insert(Articles, article(10))),
        tx(update(Articles, { id: 9, title: "last" }), remove(Articles, { id: 8 }))
      )
      yield* settle
      const expected = [
        { ...article(1), title: "tea" },
        ...[3, 4, 5, 6, 7].map((id) => article(id)),
        { ...article(9), title: "last" },
        article(10)
      ]
      assert.deepStrictEqual(index.content, expected)
      assert.strictEqual(index.count("SnapshotStarted"), 1)
      assert.strictEqual(index.count("SnapshotResumed"), 1)
      assert.strictEqual(index.count("SnapshotCompleted"), 1)
      // What was copied and is what it was does not come again: of nine rows, the three that changed.
      assert.isBelow(index.count("SnapshotRow"), 14)
      assert.include(index.told, "SnapshotRowDeleted")
    }).pipe(Effect.provide([server(), CheckpointStore.memory]))
  )

  it.effect("without a store it begins anew", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const index = new Index()
      yield* server.breakCopyAfter(7)
      yield* Effect.forkScoped(follow(index))
      yield* settle
      assert.deepStrictEqual(
        index.content,
        ids(9).map((id) => article(id))
      )
      assert.strictEqual(index.count("SnapshotStarted"), 2)
      assert.strictEqual(index.count("SnapshotResumed"), 0)
    }).pipe(Effect.provide(server()))
  )

  it.effect("is what the table is, behind whatever row the copy breaks off, and whatever is written meanwhile", () =>
    Effect.forEach(ids(10), (broken) =>
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const index = new Index()
        const gate = yield* Latch.make(false)
        yield* server.breakCopyAfter(broken - 1)
        yield* Effect.forkScoped(follow(index, gate.await))
        yield* server.write(tx(remove(Articles, { id: 2 }), update(Articles, { id: 7, title: "seven" })))
        yield* gate.open
        yield* server.write(tx(insert(Articles, { ...article(2), title: "again" })))
        yield* TestClock.adjust("3 seconds")
        yield* server.write(tx(update(Articles, { id: 20, title: "t1", body: "a" }, { old: { id: 1 } })))
        yield* settle
        const expected = [
          { ...article(2), title: "again" },
          ...[3, 4, 5, 6].map((id) => article(id)),
          { ...article(7), title: "seven" },
          article(8),
          article(9),
          { id: 20, title: "t1", body: "a" }
        ]
        assert.deepStrictEqual(index.content, expected, `broken behind ${broken - 1} rows`)
      }).pipe(Effect.provide([server(), CheckpointStore.memory]), Effect.scoped)
    )
  )

  it.effect("comes through at whatever byte a copy is cut, however small the reads are", () =>
    Effect.forEach(ids(30), (n) =>
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const index = new Index()
        yield* server.dropAfter(n * 13)
        yield* Effect.forkScoped(follow(index))
        yield* settle
        assert.deepStrictEqual(
          index.content,
          ids(9).map((id) => article(id)),
          `cut after ${n * 13} bytes`
        )
      }).pipe(Effect.provide([server({ maxReadBytes: 5 }), CheckpointStore.memory]), Effect.scoped)
    )
  )

  it.effect("a table that was emptied meanwhile is copied from its beginning", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const index = new Index()
      yield* server.breakCopyAfter(7)
      yield* Effect.forkScoped(follow(index))
      yield* server.awaitBroken
      yield* server.write(tx(truncate(Articles)), tx(insert(Articles, article(40))))
      yield* settle
      assert.deepStrictEqual(index.content, [article(40)])
      assert.strictEqual(index.count("SnapshotTableRestarted"), 1)
    }).pipe(Effect.provide([server(), CheckpointStore.memory]))
  )

  it.effect("a crash of the server in mid-copy costs the temporary slot and nothing else", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const index = new Index()
      const gate = yield* Latch.make(false)
      const begun = yield* Latch.make(false)
      yield* Effect.forkScoped(follow(index, Effect.andThen(begun.open, gate.await)))
      yield* begun.await
      yield* server.crash
      yield* gate.open
      yield* server.start
      yield* settle
      assert.deepStrictEqual(
        index.content,
        ids(9).map((id) => article(id))
      )
    }).pipe(Effect.provide([server(), CheckpointStore.memory]))
  )
})

describe("a snapshot over TestWalSender", () => {
  it.effect("by itself ends with its last row, and leaves no slot", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const seen: Array<unknown> = []
      const completed = yield* withLogicalStream(
        { ...options, snapshot: "only", copy: { connections: 3 } },
        Handler.arrays((changes) =>
          Effect.sync(() => {
            for (const change of changes) if (change._tag === "SnapshotRow") seen.push(change.row)
            return undefined
          })
        )
      )
      assert.strictEqual(completed.rows, 9)
      assert.strictEqual(seen.length, 9)
      assert.isUndefined(yield* server.slot)
    }).pipe(Effect.provide(server()))
  )

  it.effect("reads each row as it was when the slot began, and what was written since comes once, behind it", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const gate = yield* Latch.make(false)
      const begun = yield* Latch.make(false)
      const seen: Array<string> = []
      yield* withLogicalStream(options, (change) =>
        Effect.gen(function* () {
          yield* begun.open
          yield* gate.await
          if (change._tag === "SnapshotRow" || change._tag === "Insert" || change._tag === "Update") {
            seen.push(`${change._tag} ${change.row.id} ${change.row.title}`)
          }
          if (change._tag === "Delete") seen.push(`Delete ${change.old.row.id}`)
          return undefined
        })
      ).pipe(Effect.forkScoped)
      yield* begun.await
      yield* server.write(
        tx(remove(Articles, { id: 9 })),
        tx(update(Articles, { id: 8, title: "eight" }), insert(Articles, article(10)))
      )
      yield* gate.open
      yield* server.awaitStreaming
      yield* TestClock.adjust("1 second")
      const copied = ids(9).map((id) => `SnapshotRow ${id} t${id}`)
      assert.deepStrictEqual(seen, [...copied, "Delete 9", "Update 8 eight", "Insert 10 t10"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("of an empty table, and of what no publication has", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      yield* withLogicalStream({ ...options, snapshot: "only" }, (change) =>
        Effect.sync(() => {
          seen.push(
            change._tag === "SnapshotStarted" ? change.tables.map(({ relation }) => relation.name).join() : change._tag
          )
          return undefined
        })
      )
      assert.deepStrictEqual(seen, ["articles", "SnapshotTableCompleted", "SnapshotCompleted"])
    }).pipe(
      Effect.provide(
        server({
          rows: [insert(Table.make("public.others", Article, { key: ["id"] }), article(1))],
          tables: [Articles],
          publications: [{ name: "articles", tables: ["public.articles"] }]
        })
      )
    )
  )

  it.effect("never means changes alone, of a slot that is there", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const seen: Array<string> = []
      const never = withLogicalStream({ ...options, snapshot: "never" }, (change) =>
        Effect.sync(() => {
          seen.push(change._tag)
          return undefined
        })
      )
      assert.strictEqual((yield* Effect.flip(never))._tag, "SlotNotFound")
      yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.forkChild,
        Effect.tap(() => server.awaitStreaming),
        Effect.flatMap(Fiber.interrupt)
      )
      yield* Effect.forkScoped(never)
      yield* server.awaitStreaming
      yield* server.write(tx(insert(Articles, article(10))))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, ["Begin", "Insert", "Commit"])
    }).pipe(Effect.provide(server()))
  )
})
