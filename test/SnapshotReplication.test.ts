/**
 * The snapshot as a service, on a real server: one Stream of rows and changes, that goes on when the consumer says that the
 * rows are durable, and not before.
 */
import { assert, describe } from "@effect/vitest"
import { CheckpointStore, LogicalStream, nextLsn, type Snapshot, Table } from "@replicant/core"
import { Context, Effect, Exit, Fiber, Layer, Ref, Schema, Scope, Stream, SubscriptionRef } from "effect"
import { eventually } from "./support/eventually.ts"
import { walSender } from "./support/Follow.ts"
import { snapshotOptions } from "./support/FollowSnapshot.ts"
import { onServer } from "./support/Servers.ts"
import { isFree } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const orders =
  "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE others (id int); INSERT INTO orders VALUES (1, 'a'), (2, 'b')"
const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, note: Schema.String }), { key: ["id"] })

const make = (workspace: Workspace, snapshot: Snapshot.Mode = "initial", copy: LogicalStream.CopyOptions = {}) =>
  LogicalStream.make({ ...snapshotOptions(workspace, snapshot), copy: { connections: 1, ...copy } })

const slots = (workspace: Workspace) =>
  workspace.sql(`SELECT slot_name, temporary FROM pg_replication_slots WHERE database = '${workspace.database}'`)

const nothingIsLeft = (workspace: Workspace) =>
  eventually(
    Effect.map(
      Effect.all([
        slots(workspace),
        workspace.sql(`SELECT FROM pg_stat_activity WHERE datname = '${workspace.database}'
          AND backend_type = 'walsender'`)
      ]),
      (found) => found.every((rows) => rows.length === 0)
    ),
    { what: "slots and connections were gone" }
  )

/** The service in a scope of its own, and what its stream gave so far. */
const consume = Effect.fnUntraced(function* (workspace: Workspace, snapshot: Snapshot.Mode = "initial") {
  const scope = yield* Effect.acquireRelease(Scope.make(), (open) => Scope.close(open, Exit.void))
  const stream = yield* make(workspace, snapshot)
  const replication = yield* stream.open.pipe(Scope.provide(scope), Effect.provide(walSender(workspace)))
  const seen: Array<Table.TypedOf<Snapshot.ChangeAfterSnapshot, typeof Orders>> = []
  const fiber = yield* replication.changes.pipe(
    Table.changes([Orders]),
    Stream.runForEach((change) => Effect.sync(() => void seen.push(change))),
    Effect.forkScoped
  )
  return {
    replication,
    state: SubscriptionRef.get(stream.state),
    seen,
    fiber,
    close: Scope.close(scope, Exit.void),
    saw: (tag: Snapshot.ChangeAfterSnapshot["_tag"], count = 1) =>
      eventually(
        Effect.sync(() => {
          const found = seen.filter((change) => change._tag === tag)
          return found.length >= count ? found.at(-1) : undefined
        }),
        { what: `${count} of ${tag}` }
      )
  }
})

describe("the service of a snapshot and its stream", () => {
  onServer("postgres", "gives typed rows, waits for its mark, and goes on with what changed meanwhile", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const { close, fiber, replication, saw, seen, state } = yield* consume(workspace)
      const completed = yield* saw("SnapshotCompleted")
      yield* workspace.sql("UPDATE orders SET note = 'c' WHERE id = 1; INSERT INTO others VALUES (1)")
      assert.deepStrictEqual(
        (yield* slots(workspace)).map(({ temporary }) => temporary),
        [true],
        "the slot is not there before the rows are durable"
      )
      assert.strictEqual((yield* state)._tag, "Copying")
      yield* replication.acknowledgeChange(completed)
      const commit = yield* saw("Commit")
      assert.deepStrictEqual(
        seen.map((change) => change._tag),
        [
          ...["SnapshotStarted", "SnapshotRow", "SnapshotRow", "SnapshotTableCompleted", "SnapshotTableCompleted"],
          ...["SnapshotCompleted", "Begin", "Update", "Commit"]
        ]
      )
      const rows = seen.flatMap((change) => (change._tag === "SnapshotRow" ? [change.row] : []))
      assert.deepStrictEqual(rows, [
        { id: 1, note: "a" },
        { id: 2, note: "b" }
      ])
      const before = yield* replication.progress
      assert.deepInclude(before, { pending: 1 })
      assert.strictEqual((yield* state)._tag, "Streaming")
      yield* replication.acknowledgeChange(commit)
      yield* eventually(Effect.map(replication.progress, ({ flushed }) => flushed >= nextLsn(commit)!.lsn))
      yield* close
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      yield* eventually(isFree(workspace), { what: "the slot is free" })

      const again = yield* consume(workspace)
      yield* workspace.sql("DELETE FROM orders WHERE id = 2")
      yield* again.saw("Commit")
      assert.deepStrictEqual(
        again.seen.map((change) => change._tag),
        ["Begin", "Delete", "Commit"]
      )
    })
  )

  onServer("postgres", "ends after a snapshot by itself, which waits for nobody, and leaves no slot", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const stream = yield* make(workspace, "only")
      const all = yield* Effect.flatMap(stream.open, ({ changes }) => Stream.runCollect(changes)).pipe(
        Effect.scoped,
        Effect.provide(walSender(workspace))
      )
      assert.strictEqual(all.at(-1)?._tag, "SnapshotCompleted")
      yield* nothingIsLeft(workspace)
    })
  )

  onServer("postgres", "leaves nothing where its scope ends before the mark is acknowledged", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const first = yield* consume(workspace)
      const mark = yield* first.saw("SnapshotCompleted")
      yield* first.close
      yield* nothingIsLeft(workspace)
      const second = yield* consume(workspace)
      yield* second.saw("SnapshotCompleted")
      // The mark of a run that is gone says nothing of this one.
      yield* second.replication.acknowledgeChange(mark)
      yield* second.close
      yield* nothingIsLeft(workspace)
    })
  )

  onServer("postgres", "fails to be built without its slot under never, and can be consumed once", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const error = yield* make(workspace, "never").pipe(
        Effect.flatMap((stream) => stream.open),
        Effect.scoped,
        Effect.provide(walSender(workspace)),
        Effect.flip
      )
      assert.strictEqual(error._tag, "SlotNotFound")
      const { replication, saw } = yield* consume(workspace)
      yield* saw("SnapshotStarted")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(replication.changes)))._tag, "InvalidOption")
    })
  )

  onServer("postgres", "fails with its connection, and built anew it begins from the beginning", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const starts = yield* Ref.make(0)
      const rows = new Map<number, string>()
      const stream = yield* make(workspace)
      const follow = stream
        .follow((replication) =>
          replication.changes.pipe(
            Table.changes([Orders]),
            Stream.runForEach(
              Effect.fnUntraced(function* (change) {
                if (change._tag === "SnapshotStarted") rows.clear()
                if (change._tag === "SnapshotRow") rows.set(change.row.id, change.row.note)
                if (change._tag === "Insert") rows.set(change.row.id, change.row.note)
                if (change._tag === "SnapshotCompleted" && (yield* Ref.updateAndGet(starts, (n) => n + 1)) === 1) {
                  yield* workspace.sql(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                  WHERE database = '${workspace.database}'`)
                }
                yield* replication.acknowledgeChange(change)
              })
            )
          )
        )
        .pipe(Effect.provide(walSender(workspace)))
      yield* Effect.forkScoped(follow)
      yield* eventually(workspace.isStreaming())
      yield* eventually(Effect.map(Ref.get(starts), (count) => count === 2))
      yield* workspace.sql("INSERT INTO orders VALUES (3, 'c')")
      yield* eventually(Effect.sync(() => rows.size === 3))
    })
  )

  onServer("postgres", "goes on, with a store for checkpoints, from the last range that was acknowledged", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE orders (id int PRIMARY KEY, note text);
          INSERT INTO orders SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i`
      })
      const store = yield* Effect.map(Layer.build(CheckpointStore.memory), (context) =>
        Context.get(context, CheckpointStore.CheckpointStore)
      )
      const resumable = yield* make(workspace, "initial", { piecePages: 16 })
      /** Follows until so many ranges were acknowledged, or to the end. */
      const take = (ranges: number) =>
        Effect.gen(function* () {
          const replication = yield* resumable.open
          let left = ranges
          return yield* replication.changes.pipe(
            Stream.tap((change) =>
              change._tag === "SnapshotRangeCompleted" && left-- <= 0
                ? Effect.void
                : replication.acknowledgeChange(change)
            ),
            Stream.takeUntil((change) => left < 0 || change._tag === "SnapshotCompleted"),
            Stream.runCollect
          )
        }).pipe(
          Effect.scoped,
          Effect.provide(walSender(workspace)),
          Effect.provideService(CheckpointStore.CheckpointStore, store)
        )
      const first = yield* take(3)
      yield* workspace.sql("INSERT INTO orders VALUES (0, 'new')")
      const second = yield* take(Number.POSITIVE_INFINITY)
      assert.strictEqual(first[0]?._tag, "SnapshotStarted")
      assert.strictEqual(second[0]?._tag, "SnapshotResumed")
      const rows = (seen: ReadonlyArray<Snapshot.ChangeAfterSnapshot>) =>
        seen.flatMap((change) => (change._tag === "SnapshotRow" ? [change.row.id] : []))
      assert.isBelow(rows(second).length, 5000, "what was acknowledged does not come again")
      assert.strictEqual(new Set([...rows(first), ...rows(second)]).size, 5001)
    })
  )
})
