/**
 * A copy that is interrupted and goes on: what it comes to equals the source, whatever was written meanwhile, and what was
 * recorded does not come again.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe } from "@effect/vitest"
import { CheckpointStore, type Handler, Pgoutput, type Snapshot, withLogicalStream } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Deferred, Effect, Fiber, FileSystem, Layer, Option, type Scope } from "effect"
import { Random } from "../packages/core/test/support/Random.ts"
import { CopyTarget } from "./support/CopyTarget.ts"
import { eventually, patience } from "./support/eventually.ts"
import { walSender } from "./support/Follow.ts"
import { rowText, type SnapshotOptions, snapshotOptions } from "./support/FollowSnapshot.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer, type Server } from "./support/Servers.ts"
import { makeSlot } from "./support/Slot.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

type Store = CheckpointStore.CheckpointStore["Service"]
type Element = Snapshot.ChangeAfterSnapshot

const makeStore: Effect.Effect<Store> = CheckpointStore.CheckpointStore.pipe(Effect.provide(CheckpointStore.memory))

/** Small pieces, so that a small table has many. */
const small = { piecePages: 4 }

const options = (workspace: Workspace) => ({
  ...snapshotOptions(workspace, "initial"),
  copy: small,
  timing: { shutdownTimeout: "10 millis" as const }
})

/** One range after the other: of several at a time, rows of those that are not done stand among the durable ones. */
const oneByOne = { copy: { ...small, connections: 1 } }

interface RunOptions {
  readonly workspace: Workspace
  readonly store: Store
  readonly target: CopyTarget
  /** The process stops in the middle of handling the first element that is so: before or after it is applied. */
  readonly stopAt?: ((element: Element, index: number) => "before" | "after" | undefined) | undefined
  /** Done before an element is applied. */
  readonly meanwhile?: ((element: Element) => Effect.Effect<unknown>) | undefined
  readonly overrides?: Partial<SnapshotOptions> | undefined
}

interface Run {
  readonly seen: Array<Element>
  /** Waits until it has stopped where it was to. */
  readonly stopped: Effect.Effect<void, unknown>
  readonly kill: Effect.Effect<void>
  /** What it failed with. */
  readonly failure: Effect.Effect<Snapshot.Error, unknown>
  readonly saw: (tag: Element["_tag"], count?: number) => Effect.Effect<void, unknown>
}

/** One life of a consumer. */
const run = Effect.fnUntraced(function* ({
  meanwhile = () => Effect.void,
  overrides,
  stopAt,
  store,
  target,
  workspace
}: RunOptions): Effect.fn.Return<Run, never, Scope.Scope> {
  const seen: Array<Element> = []
  const stopping = yield* Deferred.make<void>()
  const stop = Effect.andThen(Deferred.succeed(stopping, undefined), Effect.never)
  const run = withLogicalStream({ ...options(workspace), ...overrides }, (element) =>
    Effect.suspend(() => {
      seen.push(element)
      const where = stopAt?.(element, seen.length)
      if (where === "before") return stop
      return Effect.andThen(
        meanwhile(element),
        Effect.suspend(() => {
          const done = target.apply(element)
          return where === "after" ? stop : Effect.succeed<Handler.Handled>(done)
        })
      )
    })
  )
  const fiber = yield* run.pipe(
    Effect.provideService(CheckpointStore.CheckpointStore, store),
    Effect.provide(walSender(workspace)),
    Effect.forkScoped
  )
  const untilFailure = <A, E>(effect: Effect.Effect<A, E>) => Effect.raceFirst(effect, Fiber.join(fiber))
  return {
    seen,
    stopped: untilFailure(Deferred.await(stopping)).pipe(Effect.timeout(patience)),
    kill: Fiber.interrupt(fiber),
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience)),
    saw: (tag, count = 1) =>
      untilFailure(
        eventually(
          Effect.sync(() => seen.filter((element) => element._tag === tag).length >= count),
          { what: `${count} of ${tag} arrived` }
        )
      )
  }
})

const tags = (seen: ReadonlyArray<Element>, ...wanted: ReadonlyArray<Element["_tag"]>) =>
  seen.map(({ _tag }) => _tag).filter((tag) => wanted.includes(tag))

const count = (seen: ReadonlyArray<Element>, tag: Element["_tag"]) => seen.filter(({ _tag }) => _tag === tag).length

/** The rows of a table at the source, as the target has them. */
const sourceRows = ({ sql }: Workspace, table: string) =>
  Effect.map(sql(`SELECT row_to_json(t)::text AS row FROM ${table} t`), (rows) =>
    rows
      .map(({ row }) => JSON.parse(String(row)) as Record<string, unknown>)
      .map((row) => rowText(Object.fromEntries(Object.entries(row).sort(([self], [that]) => (self < that ? -1 : 1)))))
      .sort()
  )

/** Waits until the target has all of it, and insists that it has nothing else. */
const assertEqual = Effect.fnUntraced(function* (
  workspace: Workspace,
  target: CopyTarget,
  tables: ReadonlyArray<string>,
  label?: string
) {
  for (const table of tables) {
    const source = yield* sourceRows(workspace, table)
    yield* Effect.ignore(eventually(Effect.sync(() => target.rows(table).join("\n") === source.join("\n"))))
    const found = target.rows(table)
    const lacking = source.filter((row) => !found.includes(row)).map((row) => row.slice(0, 60))
    const extra = found.filter((row) => !source.includes(row)).map((row) => row.slice(0, 60))
    assert.deepStrictEqual({ lacking, extra }, { lacking: [], extra: [] }, `${table} ${label ?? ""}`)
    assert.strictEqual(found.length, source.length, `${table} ${label ?? ""}`)
  }
  assert.strictEqual(target.problems.slice(0, 5).join("; "), "", label)
})

const pad = "repeat('x', 400)"
/** Some 50 pages each, and so a dozen pieces. */
const twoTables = `
  CREATE TABLE a (id int PRIMARY KEY, n int, pad text); CREATE TABLE b (id int PRIMARY KEY, n int, pad text);
  INSERT INTO a SELECT i, 0, ${pad} FROM generate_series(1, 1000) i;
  INSERT INTO b SELECT i, 0, ${pad} FROM generate_series(1, 1000) i`

/** Stops once so many ranges are recorded: at the next row. */
const afterRanges = (ranges: number) => {
  let recorded = 0
  return (element: Element) => {
    if (element._tag === "SnapshotRangeCompleted") recorded++
    return element._tag === "SnapshotRow" && recorded >= ranges ? ("before" as const) : undefined
  }
}

/** A copy that was killed once so much was recorded. */
const killedAfter = Effect.fnUntraced(function* (options: RunOptions, ranges: number) {
  const first = yield* run({ ...options, stopAt: afterRanges(ranges) })
  yield* first.stopped
  yield* first.kill
  options.target.crash("durable")
  return first
})

const slotsOf = ({ database, sql }: Workspace) =>
  Effect.map(sql(`SELECT slot_name FROM pg_replication_slots WHERE database = '${database}' ORDER BY 1`), (rows) =>
    rows.map(({ slot_name }) => String(slot_name))
  )

/** Temporary ones go with their sessions, a moment after the client is gone. */
const untilSlots = (workspace: Workspace, ...names: ReadonlyArray<string>) =>
  eventually(
    Effect.map(slotsOf(workspace), (found) => found.join() === names.join()),
    { what: `the slots are ${names.join()}` }
  )

const makeWorkspaceFor = (server: Server) => Effect.map(makeWorkspace(server), (workspace) => ({ workspace }))

const prepare = Effect.fnUntraced(function* (server: Parameters<typeof makeWorkspace>[0], sql: string) {
  const workspace = yield* makeWorkspace(server, { sql })
  return { workspace, store: yield* makeStore, target: new CopyTarget() }
})

/** Tables that differ in how their rows are told apart and stored; what is TOASTed is never small. */
const mixedNames = ["keyed", "other", "nokey", "whole"]
const mixedTables = `
  CREATE TABLE keyed (id int PRIMARY KEY, n int, pad text, big text); ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE other (a int, b text, n int, big text, PRIMARY KEY (a, b)); ALTER TABLE other ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE nokey (n int, pad text); CREATE TABLE whole (n int, pad text); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE tree (id int PRIMARY KEY, n int, pad text) PARTITION BY RANGE (id);
  CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (0) TO (500);
  CREATE TABLE tree_2 PARTITION OF tree FOR VALUES FROM (500) TO (1000000);
  INSERT INTO keyed SELECT i, 0, ${pad}, repeat(md5(i::text), 100) FROM generate_series(1, 1000) i;
  INSERT INTO other SELECT i, 'k' || i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 600) i;
  INSERT INTO nokey SELECT i, ${pad} FROM generate_series(1, 400) i;
  INSERT INTO whole SELECT i % 100, ${pad} FROM generate_series(1, 400) i;
  INSERT INTO tree SELECT i, 0, ${pad} FROM generate_series(1, 999) i`

/** Keys are few, so that they are left and taken again all the time, with values out of line that no update repeats. */
const randomTransaction = (random: Random): string => {
  const key = () => 1 + random.below(1200)
  const statement = (): string => {
    const id = key()
    const n = random.below(1000)
    switch (random.below(14)) {
      case 0:
        return `INSERT INTO keyed VALUES (${id}, ${n}, ${pad}, repeat(md5('${n}'), 100)) ON CONFLICT DO NOTHING`
      case 1:
        return `DELETE FROM keyed WHERE id = ${id}`
      case 2:
      case 3:
        return `UPDATE keyed SET n = ${n} WHERE id BETWEEN ${id} AND ${id + 20}`
      case 4:
      case 5:
        return `UPDATE keyed SET id = ${key()} WHERE id = ${id}`
      case 6:
        return `UPDATE keyed SET big = repeat(md5('${n}'), 100) WHERE id = ${id}`
      case 7:
        return `UPDATE other SET a = ${key()} WHERE a = ${id}`
      case 8:
        return `UPDATE other SET n = ${n} WHERE a BETWEEN ${id} AND ${id + 20}`
      case 9:
        return `DELETE FROM other WHERE a = ${id}; INSERT INTO other VALUES (${id}, 'k${n % 3}', 0, repeat(md5('${n}'), 100))`
      case 10:
        return `INSERT INTO nokey VALUES (${n}, 'new')`
      case 11:
        return `UPDATE whole SET n = ${n} WHERE ctid = (SELECT ctid FROM whole WHERE n = ${n % 100} LIMIT 1)`
      case 12:
        return `DELETE FROM whole WHERE ctid = (SELECT ctid FROM whole WHERE n = ${n} LIMIT 1)`
      default:
        return `UPDATE tree SET id = ${key()}, n = ${n} WHERE id = ${id}`
    }
  }
  // Long enough for a snapshot to come between its statements.
  return Array.from({ length: 1 + random.below(4) }, () => `${statement()}; SELECT pg_sleep(0.001)`).join("; ")
}

/** The connection is lost, of whoever copies. */
const endBackends = ({ database }: Workspace): string =>
  `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}' AND backend_type = 'walsender'`

describe("a copy with a store", () => {
  onServer("postgres", "goes on where it was killed, and brings nothing again that was recorded", (server) =>
    Effect.gen(function* () {
      const { store, target, workspace } = yield* prepare(server, twoTables)
      const first = yield* killedAfter({ workspace, store, target, overrides: oneByOne }, 8)
      yield* untilSlots(workspace, `${workspace.slot}_copying`)
      const recorded = target.rows("a").length + target.rows("b").length
      assert.isAbove(recorded, 300)
      const second = yield* run({ workspace, store, target })
      yield* second.saw("SnapshotCompleted")
      assert.deepStrictEqual(tags(second.seen, "SnapshotStarted", "SnapshotResumed"), ["SnapshotResumed"])
      assert.strictEqual(count(second.seen, "SnapshotRow"), 2000 - recorded)
      assert.strictEqual(target.rowsRepeated, 0)
      yield* eventually(workspace.isStreaming(workspace.slot))
      yield* untilSlots(workspace, workspace.slot)
      yield* workspace.sql("UPDATE a SET n = 1 WHERE id = 7; DELETE FROM b WHERE id = 8")
      yield* second.saw("Commit")
      yield* assertEqual(workspace, target, ["a", "b"])
      const [started] = first.seen
      const [resumed] = second.seen
      assert(started?._tag === "SnapshotStarted" && resumed?._tag === "SnapshotResumed")
      assert.strictEqual(resumed.consistentPoint, started.consistentPoint)
    })
  )

  onServer(
    "postgres",
    "equals the source in the end, however often it is killed while everything is written to",
    (server) => {
      const round = Effect.fnUntraced(function* (seed: number) {
        const random = new Random(seed)
        const { store, target, workspace } = yield* prepare(server, mixedTables)
        const isRoot = random.below(2) === 0
        yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} SET (publish_via_partition_root = ${isRoot})`)
        const report = { kills: 0, losses: 0, statements: 0, deleted: 0, restarted: 0, repeated: 0 }
        let isWriting = true
        const writer = Effect.gen(function* () {
          const session = yield* workspace.session
          const statements = new Random(random.below(1 << 30))
          while (isWriting) {
            // One that meets a key of another session's is lost, and its transaction with it.
            yield* Effect.ignore(session.query(randomTransaction(statements)))
            report.statements++
          }
        }).pipe(Effect.scoped)
        const writers = yield* Effect.forEach([1, 2], () => Effect.forkScoped(writer))
        const note = ({ seen }: Run) => {
          report.deleted += count(seen, "SnapshotRowDeleted")
          report.restarted += count(seen, "SnapshotTableRestarted")
        }
        for (let life = 0; life < 4 && !target.isComplete; life++) {
          const end = 20 + random.below(3000)
          const where = random.below(2) === 0 ? "before" : "after"
          const isMark = random.below(3) === 0
          const stopAt = (element: Element, index: number) =>
            index >= end && (!isMark || element._tag === "SnapshotRangeCompleted" || element._tag === "Commit")
              ? where
              : undefined
          const one = yield* run({ workspace, store, target, stopAt })
          if (random.below(2) === 0) {
            yield* Effect.ignore(eventually(Effect.sync(() => one.seen.length > end / 2)))
            yield* workspace.sql(endBackends(workspace))
            report.losses++
          }
          yield* one.stopped
          yield* one.kill
          note(one)
          target.crash(random.below(2) === 0 ? "all" : "durable")
          report.kills++
        }
        const last = yield* run({ workspace, store, target })
        yield* last.saw("Commit", 20)
        isWriting = false
        yield* Effect.forEach(writers, Fiber.join)
        const label = `RESUME_SEED=${seed} ${JSON.stringify(report)}`
        yield* assertEqual(workspace, target, [...mixedNames, ...(isRoot ? ["tree"] : ["tree_1", "tree_2"])], label)
        note(last)
        yield* last.kill
        return report
      })
      const first = Number(process.env.RESUME_SEED ?? 1)
      const rounds = Number(process.env.RESUME_ROUNDS ?? (server.majorVersion === PostgresVersion.latest ? 5 : 1))
      return Effect.gen(function* () {
        for (let seed = first; seed < first + rounds; seed++) {
          const report = yield* Effect.scoped(round(seed))
          if (process.env.RESUME_ROUNDS !== undefined) yield* Effect.log(`round ${seed}: ${JSON.stringify(report)}`)
        }
      })
    },
    { timeout: 60_000 + 20_000 * Number(process.env.RESUME_ROUNDS ?? 1) }
  )

  onServer(
    "postgres",
    "has rows that moved meanwhile once, under the key and with the values that they have now",
    (server) =>
      Effect.gen(function* () {
        const { store, target, workspace } = yield* prepare(
          server,
          `CREATE TABLE a (id int PRIMARY KEY, n int, pad text, big text); ALTER TABLE a ALTER big SET STORAGE EXTERNAL;
         INSERT INTO a SELECT i, 0, ${pad}, repeat(md5(i::text), 100) FROM generate_series(1, 600) i`
        )
        yield* killedAfter({ workspace, store, target, overrides: oneByOne }, 3)
        const copied = target.rows("a").length
        assert(copied > 100 && copied < 500)
        // Rows from the end of the table, which was not copied, find room in the pages that were; none repeats its big value.
        yield* workspace.sql("DELETE FROM a WHERE id BETWEEN 1 AND 40")
        yield* workspace.sql("VACUUM a")
        yield* workspace.sql("UPDATE a SET n = 1 WHERE id > 570")
        yield* workspace.sql(`UPDATE a SET id = 10001 WHERE id = 600; UPDATE a SET id = 600 WHERE id = 50;
        UPDATE a SET id = 50 WHERE id = 10001; UPDATE a SET id = 1 WHERE id = 599; DELETE FROM a WHERE id = 60`)
        const [moved] = yield* workspace.sql("SELECT count(*)::int AS count FROM a WHERE id > 570 AND ctid < '(10,0)'")
        assert.isAbove(Number(moved?.count), 0)
        const second = yield* run({ workspace, store, target })
        yield* second.saw("SnapshotCompleted")
        // Before anything is streamed.
        yield* assertEqual(workspace, target, ["a"])
        assert.strictEqual(target.rowsRepeated, 0)
        assert.isAbove(count(second.seen, "SnapshotRowDeleted"), 40)
        yield* workspace.sql("UPDATE a SET n = 2; DELETE FROM a WHERE id % 2 = 0")
        yield* assertEqual(workspace, target, ["a"])
        const begins = second.seen.flatMap((element) =>
          element._tag === "Insert" || element._tag === "Update" || element._tag === "Delete" ? [element.begin] : []
        )
        assert.strictEqual(new Set(begins).size, 1)
      })
  )

  onServer("postgres", "goes on within one process, without a new beginning, when its connections are lost", (server) =>
    Effect.gen(function* () {
      const { store, target, workspace } = yield* prepare(server, twoTables)
      const pause = afterRanges(5)
      let isCut = false
      const one = yield* run({
        workspace,
        store,
        target,
        overrides: { copy: { ...small, connections: 3 } },
        meanwhile: (element) => {
          if (isCut || pause(element) === undefined) return Effect.void
          isCut = true
          return Effect.orDie(workspace.sql(endBackends(workspace)))
        }
      })
      yield* one.saw("SnapshotCompleted")
      yield* eventually(workspace.isStreaming(workspace.slot))
      const beginnings = one.seen.flatMap((element) =>
        element._tag === "SnapshotStarted" || element._tag === "SnapshotResumed"
          ? [[element._tag, element.attempt]]
          : []
      )
      assert.deepStrictEqual(beginnings, [
        ["SnapshotStarted", 1],
        ["SnapshotResumed", 2]
      ])
      yield* assertEqual(workspace, target, ["a", "b"])
    })
  )

  onServer(
    "postgres",
    "copies anew what was altered, emptied or written anew, and what has no key, and nothing else",
    (server) =>
      Effect.gen(function* () {
        const names = ["kept", "altered", "emptied", "rewritten", "filtered", "dropped", "renamed"]
        const table = (name: string) =>
          `CREATE TABLE ${name} (id int PRIMARY KEY, n int, pad text); INSERT INTO ${name} SELECT i, 0, ${pad} FROM generate_series(1, 30) i`
        const { store, target, workspace } = yield* prepare(
          server,
          `${names.map(table).join("; ")}; CREATE TABLE nokey (n int, pad text);
         INSERT INTO nokey SELECT i, ${pad} FROM generate_series(1, 500) i;
         CREATE TABLE outside (id int PRIMARY KEY, n int, pad text); INSERT INTO outside SELECT 1, 1, 'x';
         DROP PUBLICATION IF EXISTS chosen; CREATE PUBLICATION chosen FOR TABLE ${names.join(", ")}, nokey`
        )
        const overrides = { plugin: Pgoutput.make({ publications: ["chosen"] }), copy: { ...small, connections: 1 } }
        yield* killedAfter({ workspace, store, target, overrides }, 6)
        const recorded = target.rows("nokey").length
        assert(recorded > 0 && recorded < 500)
        yield* workspace.sql(`
        UPDATE kept SET n = 1 WHERE id < 4; DELETE FROM kept WHERE id = 5;
        ALTER TABLE altered ADD m int DEFAULT 7; TRUNCATE emptied; INSERT INTO emptied VALUES (1, 1, 'x');
        ALTER TABLE rewritten ALTER n TYPE int USING n + 1; DROP TABLE dropped; ALTER TABLE renamed RENAME TO other_name;
        ALTER PUBLICATION chosen ADD TABLE outside; UPDATE outside SET n = 2; INSERT INTO nokey VALUES (0, 'late')`)
        yield* workspace.sql("VACUUM FULL filtered")
        const second = yield* run({ workspace, store, target, overrides })
        yield* second.saw("SnapshotCompleted")
        const [resumed] = second.seen
        assert(resumed?._tag === "SnapshotResumed")
        assert.deepStrictEqual(resumed.unpublished, [
          { schema: "public", name: "dropped" },
          { schema: "public", name: "renamed" }
        ])
        const restarted = second.seen.flatMap((element) =>
          element._tag === "SnapshotTableRestarted" ? [element.relation.name] : []
        )
        assert.deepStrictEqual(restarted.sort(), [
          "altered",
          "emptied",
          "filtered",
          "nokey",
          "other_name",
          "outside",
          "rewritten"
        ])
        assert.isFalse(
          second.seen.some((element) => element._tag === "SnapshotRow" && element.relation.name === "kept")
        )
        yield* workspace.sql("UPDATE other_name SET n = 5; INSERT INTO nokey VALUES (1, 'later')")
        const published = ["kept", "altered", "emptied", "rewritten", "filtered", "other_name", "outside", "nokey"]
        yield* assertEqual(workspace, target, published)
      })
  )

  onServer(
    "postgres",
    "leaves out of the stream what it copied late, also when that is streamed again by another process",
    (server) =>
      Effect.gen(function* () {
        const { store, target, workspace } = yield* prepare(
          server,
          `CREATE TABLE a (id int PRIMARY KEY, pad text); INSERT INTO a SELECT i, ${pad} FROM generate_series(1, 500) i;
         CREATE TABLE z (n int)`
        )
        yield* killedAfter({ workspace, store, target, overrides: { copy: { ...small, connections: 1 } } }, 3)
        yield* workspace.sql("INSERT INTO z SELECT generate_series(1, 10); INSERT INTO z VALUES (11)")
        const second = yield* run({
          workspace,
          store,
          target,
          stopAt: ({ _tag }) => (_tag === "Begin" ? "before" : undefined)
        })
        yield* second.saw("SnapshotCompleted")
        yield* second.stopped
        yield* second.kill
        target.crash("all")
        const third = yield* run({ workspace, store, target, overrides: { snapshot: "initial" } })
        yield* workspace.sql("INSERT INTO z VALUES (12)")
        yield* third.saw("Insert")
        yield* assertEqual(workspace, target, ["a", "z"])
        assert.strictEqual(count(third.seen, "Insert"), 1)
        yield* eventually(
          Effect.map(
            workspace.findSlot(),
            (slot) => slot?.confirmed_flush_lsn !== (third.seen[0] as { consistentPoint?: string })
          ),
          { what: "the slot moved on" }
        )
        yield* third.kill
        const key = `snapshot/${workspace.slot}`
        yield* eventually(
          Effect.gen(function* () {
            const fourth = yield* run({ workspace, store, target })
            yield* eventually(workspace.isStreaming(workspace.slot))
            yield* fourth.kill
            return Option.isNone(yield* store.load(key))
          }).pipe(Effect.scoped),
          { what: "a run found the slot beyond the seam, and removed the checkpoint" }
        )
      })
  )

  onServer(
    "postgres",
    "begins anew where its slot is gone or was moved, and refuses one that somebody else has made",
    (server) =>
      Effect.gen(function* () {
        const { store, target, workspace } = yield* prepare(server, twoTables)
        const working = `${workspace.slot}_copying`
        const lose = [
          [`SELECT pg_drop_replication_slot('${working}')`],
          ["UPDATE a SET n = 3 WHERE id = 1", `SELECT pg_replication_slot_advance('${working}', pg_current_wal_lsn())`]
        ]
        for (const statements of lose) {
          yield* killedAfter({ workspace, store, target }, 5)
          // The walsenders may not have noticed yet that their client has gone.
          yield* Effect.forEach(statements, (statement) => eventually(Effect.as(workspace.sql(statement), true)))
          const again = yield* killedAfter({ workspace, store, target }, 5)
          assert.deepStrictEqual(tags(again.seen, "SnapshotStarted", "SnapshotResumed"), ["SnapshotStarted"])
        }
        yield* makeSlot(workspace)
        const refused = yield* run({ workspace, store, target })
        assert.strictEqual((yield* refused.failure)._tag, "SlotAlreadyExists")
        yield* workspace.sql(`SELECT pg_drop_replication_slot('${workspace.slot}')`)
        const last = yield* run({ workspace, store, target })
        yield* last.saw("SnapshotCompleted")
        assert.deepStrictEqual(tags(last.seen, "SnapshotStarted", "SnapshotResumed"), ["SnapshotResumed"])
        yield* assertEqual(workspace, target, ["a", "b"])
      })
  )

  onServer("postgres", "refuses a checkpoint of another cluster, and one that is none", (server) =>
    Effect.gen(function* () {
      const { store, target, workspace } = yield* prepare(server, twoTables)
      yield* killedAfter({ workspace, store, target }, 5)
      const key = `snapshot/${workspace.slot}`
      const text = Option.getOrThrow(yield* store.load(key))
      yield* store.save(key, text.replace(/"systemId":"\d+"/, '"systemId":"1"'))
      const elsewhere = yield* run({ workspace, store, target })
      assert.strictEqual((yield* elsewhere.failure)._tag, "SystemMismatch")
      yield* store.save(key, text.slice(0, -5))
      const damaged = yield* run({ workspace, store, target })
      const failure = yield* damaged.failure
      assert(failure._tag === "CheckpointError")
      assert.deepStrictEqual([failure.during, failure.key], ["read", key])
      yield* store.remove(key)
      const anew = yield* run({ workspace, store, target })
      yield* anew.saw("SnapshotCompleted")
      assert.strictEqual(count(anew.seen, "SnapshotStarted"), 1)
      yield* assertEqual(workspace, target, ["a", "b"])
    })
  )

  onServer("postgres", "saves a checkpoint only when the handler has ended the element that bears it", (server) =>
    Effect.gen(function* () {
      const { store, target, workspace } = yield* prepare(server, twoTables)
      const events: Array<string> = []
      const watched: Store = {
        ...store,
        save: (key, text) =>
          Effect.andThen(
            // Which tables are covered is kept, too, and is nothing of the handler's.
            Effect.sync(() => void (key.startsWith("snapshot/") && events.push(text))),
            store.save(key, text)
          )
      }
      const marks = new Set(["SnapshotRangeCompleted", "SnapshotCompleted"])
      const one = yield* run({
        workspace,
        store: watched,
        target,
        stopAt: (element) => {
          if (marks.has(element._tag) && "checkpoint" in element) events.push(`handled ${element.checkpoint}`)
          return undefined
        }
      })
      yield* eventually(workspace.isStreaming(workspace.slot))
      const [beginning, ...rest] = events
      const [started] = one.seen
      assert(started?._tag === "SnapshotStarted")
      assert.strictEqual(started.checkpoint, beginning)
      assert.isAbove(rest.length, 10)
      for (let index = 0; index < rest.length; index += 2) assert.strictEqual(rest[index], `handled ${rest[index + 1]}`)
      assert.isTrue(Option.isNone(yield* store.load(`snapshot/${workspace.slot}`)))
    })
  )

  onServer("postgres", "makes the slot that was still to be made when all had been handled", (server) =>
    Effect.gen(function* () {
      const { store, target, workspace } = yield* prepare(server, twoTables)
      const reached = yield* Deferred.make<void>()
      const dying: Store = {
        ...store,
        save: (key, text) =>
          Effect.andThen(
            store.save(key, text),
            text.includes('"completed"')
              ? Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
              : Effect.void
          )
      }
      const first = yield* run({ workspace, store: dying, target })
      yield* Deferred.await(reached)
      yield* first.kill
      yield* workspace.sql("INSERT INTO a VALUES (5000, 1, 'x')")
      const second = yield* run({ workspace, store, target })
      yield* second.saw("Commit")
      assert.deepStrictEqual(
        second.seen.map(({ _tag }) => _tag),
        ["Begin", "Insert", "Commit"]
      )
      yield* untilSlots(workspace, workspace.slot)
      yield* assertEqual(workspace, target, ["a", "b"])
    })
  )

  onServer("postgres", "goes on from checkpoints that its consumer keeps together with its rows", (server) =>
    Effect.gen(function* () {
      const { target, workspace } = yield* prepare(server, twoTables)
      let kept: string | undefined
      const store: Store = {
        load: () => Effect.sync(() => Option.fromUndefinedOr(kept)),
        save: () => Effect.void,
        remove: () =>
          Effect.sync(() => {
            kept = undefined
          })
      }
      // The rows and the text are durable together, and then the process is gone.
      let ranges = 0
      const keep = (element: Element) => {
        if ("checkpoint" in element && element.checkpoint !== undefined) kept = element.checkpoint
        return element._tag === "SnapshotRangeCompleted" && ++ranges === 8 ? ("after" as const) : undefined
      }
      const first = yield* run({ workspace, store, target, stopAt: keep, overrides: oneByOne })
      yield* first.stopped
      yield* first.kill
      target.crash("durable")
      const second = yield* run({ workspace, store, target, stopAt: keep })
      yield* second.saw("SnapshotCompleted")
      assert.strictEqual(count(second.seen, "SnapshotResumed"), 1)
      assert.strictEqual(target.rowsRepeated, 0)
      yield* assertEqual(workspace, target, ["a", "b"])
      yield* eventually(workspace.isStreaming(workspace.slot))
    })
  )

  onServer(
    "postgres",
    "outlives its server's crash, with checkpoints in files",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const { target, workspace } = yield* prepare(server, twoTables)
        const fileSystem = yield* FileSystem.FileSystem
        const directory = yield* fileSystem.makeTempDirectoryScoped()
        const makeFileStore = CheckpointStore.CheckpointStore.pipe(Effect.provide(CheckpointStore.file({ directory })))
        yield* killedAfter({ workspace, store: yield* makeFileStore, target }, 6)
        yield* server.restart("immediate")
        yield* workspace.sql("UPDATE a SET n = 2 WHERE id % 10 = 0; DELETE FROM b WHERE id % 10 = 0")
        const ranges = afterRanges(3)
        let isDown = false
        const second = yield* run({
          workspace,
          store: yield* makeFileStore,
          target,
          stopAt: (element) => {
            if (ranges(element) !== undefined) isDown = true
            return undefined
          }
        })
        yield* eventually(Effect.sync(() => isDown))
        yield* server.restart("immediate")
        yield* second.saw("SnapshotCompleted")
        assert.strictEqual(count(second.seen, "SnapshotStarted"), 0)
        yield* assertEqual(workspace, target, ["a", "b"])
      }).pipe(Effect.provide(NodeServices.layer)),
    { timeout: 60_000, since: PostgresVersion.latest }
  )

  onServer("postgres", "keeps checkpoints in a table, which it makes if asked", (server) =>
    Effect.gen(function* () {
      const { workspace } = yield* makeWorkspaceFor(server)
      const layer = CheckpointStore.sql({ table: "kept.checkpoints", createTable: "ifMissing" })
      yield* workspace.sql("CREATE SCHEMA kept")
      const roundTrip = Effect.gen(function* () {
        const store = yield* CheckpointStore.CheckpointStore
        assert.isTrue(Option.isNone(yield* store.load("a'b")))
        yield* store.save("a'b", '{"first":1}')
        const text = JSON.stringify({ second: "\\ 'é\n" })
        yield* store.save("a'b", text)
        assert.deepStrictEqual(yield* store.load("a'b"), Option.some(text))
        yield* store.remove("a'b")
        yield* store.remove("a'b")
        assert.isTrue(Option.isNone(yield* store.load("a'b")))
        yield* workspace.sql("DROP TABLE kept.checkpoints")
        const error = yield* Effect.flip(store.save("a'b", "{}"))
        assert.deepStrictEqual([error._tag, error.during, error.key], ["CheckpointError", "save", "a'b"])
      })
      yield* Effect.provide(roundTrip, Layer.provide(layer, sqlClient(workspace.url())))
    })
  )
})
