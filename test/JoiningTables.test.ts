/**
 * [P10] The set of tables is part of a stream's position: those that join the publication, leave it, come back or are
 * published otherwise, while the stream runs and while it does not. In the end the target is what the source is, or it was
 * said why not.
 */
import { assert, describe } from "@effect/vitest"
import { CheckpointStore, LogicalStream, nextLsn, Pgoutput, type Row, type Snapshot } from "@replicant/core"
import { Effect, Fiber, Layer, Logger, Option, Schedule, Stream } from "effect"
import { textStore } from "../packages/core/test/support/textStore.ts"
import { eventually } from "./support/eventually.ts"
import { walSender } from "./support/Follow.ts"
import { once, onServer } from "./support/Servers.ts"
import { untilConfirmed } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

/** A target of tables whose key is `id`: it outlives every run, and does what docs/resnapshot.md says. */
class Target {
  readonly tables = new Map<string, Map<string, Row>>()
  readonly seen: Array<Snapshot.ChangeAfterSnapshot> = []
  readonly log: Array<string> = []

  private table(name: string): Map<string, Row> {
    const table = this.tables.get(name) ?? new Map<string, Row>()
    this.tables.set(name, table)
    return table
  }

  apply(change: Snapshot.ChangeAfterSnapshot): void {
    this.seen.push(change)
    switch (change._tag) {
      case "SnapshotStarted":
        this.tables.clear()
        return
      case "SnapshotTableRestarted":
      case "TableSnapshotStarted":
        this.table(change.relation.name).clear()
        return
      case "SnapshotRow":
      case "Insert":
        this.table(change.relation.name).set(String(change.row.id), change.row)
        return
      case "Update": {
        const table = this.table(change.relation.name)
        const from = String(change.old?.row.id ?? change.row.id)
        const before = table.get(from)
        table.delete(from)
        table.set(String(change.row.id), { ...before, ...change.row })
        return
      }
      case "SnapshotRowDeleted":
      case "Delete":
        this.table(change.relation.name).delete(String(change.old.row.id))
        return
    }
  }

  count(tag: Snapshot.ChangeAfterSnapshot["_tag"], table?: string): number {
    return this.seen.filter(
      (change) =>
        change._tag === tag && (table === undefined || ("relation" in change && change.relation.name === table))
    ).length
  }

  /** As the server prints rows. */
  rows(table: string): ReadonlyArray<string> {
    return Array.from(this.tables.get(table)?.values() ?? [], (row) => `(${Object.values(row).join(",")})`).sort()
  }

  readonly logger = Layer.merge(
    Logger.layer([Logger.make(({ message }) => void this.log.push([message].flat().join(" ")))]),
    Layer.empty
  )
}

type Options = Partial<Omit<LogicalStream.Options, "snapshot" | "inProgress">>

interface Following {
  readonly workspace: Workspace
  readonly target: Target
  readonly store: CheckpointStore.CheckpointStore["Service"]
  readonly options?: Options | undefined
  /** Runs before each element. */
  readonly before?: ((change: Snapshot.ChangeAfterSnapshot) => Effect.Effect<void>) | undefined
}

/** A run of the stream, until the scope ends. */
const run = Effect.fnUntraced(function* ({ before, options, store, target, workspace }: Following) {
  const stream = yield* LogicalStream.make({
    slot: workspace.slot,
    plugin: Pgoutput.make({ publications: [workspace.publication], types: "text" }),
    timing: { acknowledgeDelay: "20 millis" },
    reconnect: Schedule.spaced("50 millis"),
    ...options,
    snapshot: "initial"
  })
  const fiber = yield* stream
    .run((change) =>
      Effect.andThen(
        before?.(change) ?? Effect.void,
        Effect.sync(() => {
          target.apply(change)
          return nextLsn(change)
        })
      )
    )
    .pipe(
      Effect.provideService(CheckpointStore.CheckpointStore, store),
      Effect.provide(walSender(workspace)),
      Effect.provide(target.logger),
      Effect.forkScoped
    )
  return { stream, fiber }
})

type Running = Effect.Success<ReturnType<typeof run>>

/** Runs it for as long as something takes. */
const during = <A, E>(following: Following, use: (running: Running) => Effect.Effect<A, E>) =>
  Effect.scoped(
    Effect.flatMap(run(following), (running) =>
      Effect.raceFirst(use(running), Effect.andThen(Fiber.join(running.fiber), Effect.never))
    )
  )

const isEventually = (what: string, condition: () => boolean) => eventually(Effect.sync(condition), { what })

const sourceRows = (workspace: Workspace, table: string) =>
  Effect.map(workspace.sql(`SELECT t::text AS row FROM ${table} t`), (rows) =>
    rows.map(({ row }) => String(row)).sort()
  )

const untilSame = ({ target, workspace }: Following, table: string) =>
  eventually(
    Effect.map(sourceRows(workspace, table), (rows) => JSON.stringify(rows) === JSON.stringify(target.rows(table))),
    { what: `${table} is what it is at the source` }
  )

/** Nothing is left to be read. */
const untilCovered = ({ store, workspace }: Following, table: string) =>
  eventually(
    Effect.map(store.load(`covered/${workspace.slot}`), (text) => {
      const { tables } = JSON.parse(Option.getOrElse(text, () => '{"tables":[]}'))
      return tables.some((one: Record<string, unknown>) => one.name === table && one.isWhole === true)
    }),
    { what: `${table} is covered` }
  )

const sql = `CREATE TABLE early (id int PRIMARY KEY, v text); INSERT INTO early VALUES (1, 'a');
  CREATE TABLE late (id int PRIMARY KEY, v text); INSERT INTO late SELECT n, 'old' FROM generate_series(1, 300) n`

const make = (server: Parameters<typeof makeWorkspace>[0], publication = "FOR TABLE early", tables = sql) =>
  Effect.map(
    makeWorkspace(server, { sql: tables, publication }),
    (workspace): Following => ({ workspace, target: new Target(), store: textStore() })
  )

const untilStreaming = ({ workspace }: Following) => eventually(workspace.isStreaming(), { what: "it streams" })

describe("the tables of a stream with rows before it", () => {
  onServer("postgres", "[P10] that join while it runs come whole, while others write to them; and once", (server) =>
    Effect.gen(function* () {
      const following = yield* make(server)
      const { target, workspace } = following
      yield* during(following, () =>
        Effect.gen(function* () {
          yield* untilSame(following, "early")
          yield* untilStreaming(following)
          yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late`)
          let round = 0
          const stir = Effect.suspend(() => {
            round += 1
            return workspace.sql(`UPDATE late SET v = 'round${round}' WHERE id = ${1 + (round % 300)};
              DELETE FROM late WHERE id = ${1 + ((round * 7) % 300)}; INSERT INTO late VALUES (${1000 + round}, 'new')`)
          })
          yield* Effect.raceFirst(Effect.forever(stir), untilCovered(following, "late"))
          yield* untilSame(following, "late")
        })
      )
      assert.strictEqual(target.count("TableSnapshotStarted", "late"), 1)
      assert.strictEqual(target.count("TableSnapshotStarted"), 1)
      yield* workspace.sql("INSERT INTO late VALUES (5000, 'later'); INSERT INTO early VALUES (2, 'b')")
      yield* during(following, () => Effect.andThen(untilSame(following, "late"), untilSame(following, "early")))
      assert.strictEqual(target.count("TableSnapshotStarted"), 1)
      assert.isTrue(target.log.some((line) => /newly published: "public"."late"/.test(line)))
    })
  )

  onServer(
    "postgres",
    "[P10] that joined while it was down come whole, and go on where they stood when it is killed",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(server)
        const { target, workspace } = following
        yield* during(following, () => untilStreaming(following))
        yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late; DELETE FROM late WHERE id = 7;
        INSERT INTO late VALUES (1000, 'new')`)
        // Stopped at the table's beginning, and at a row of it.
        for (const tag of ["TableSnapshotStarted", "SnapshotRow"] as const) {
          let isThere = false
          const stuck: Following = {
            ...following,
            options: { timing: { shutdownTimeout: 1 } },
            before: (change) =>
              Effect.suspend(() => {
                isThere ||= change._tag === tag && "relation" in change && change.relation.name === "late"
                return isThere ? Effect.never : Effect.void
              })
          }
          yield* during(stuck, () => isEventually(`a ${tag} comes`, () => isThere))
        }
        yield* during(following, () => Effect.andThen(untilCovered(following, "late"), untilSame(following, "late")))
        assert.isAbove(target.rows("late").length, 299)
      })
  )

  onServer(
    "postgres",
    "[P10] that left and came back, or were published in part for a while, are read anew",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(server, "FOR TABLE early, late")
        const { target, workspace } = following
        const alter = (text: string) => workspace.sql(`ALTER PUBLICATION ${workspace.publication} ${text}`)
        yield* during(following, () => Effect.andThen(untilStreaming(following), untilSame(following, "late")))
        yield* alter("DROP TABLE late")
        yield* workspace.sql("UPDATE late SET v = 'missed' WHERE id < 10; DELETE FROM late WHERE id BETWEEN 20 AND 30")
        yield* alter("ADD TABLE late")
        yield* during(following, () => Effect.andThen(untilCovered(following, "late"), untilSame(following, "late")))
        assert.strictEqual(target.count("TableSnapshotStarted", "late"), 1)
        assert.strictEqual(target.count("TableSnapshotStarted", "early"), 0)
        yield* alter("SET (publish = 'insert')")
        yield* workspace.sql("UPDATE late SET v = 'unheard' WHERE id < 15; DELETE FROM early WHERE id = 1")
        yield* alter("SET (publish = 'insert, update, delete, truncate')")
        yield* during(following, () => Effect.andThen(untilSame(following, "late"), untilSame(following, "early")))
        // Told, and what is stored of it stays.
        yield* alter("DROP TABLE late")
        yield* during(following, () =>
          isEventually("it is told", () => target.log.some((line) => /no longer published: "public"."late"/.test(line)))
        )
        assert.isAbove(target.rows("late").length, 200)
      })
  )

  onServer(
    "postgres",
    "[P10] that are partitions and were detached, written to and attached again are right",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(
          server,
          "FOR TABLE root WITH (publish_via_partition_root = true)",
          `CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
          CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (100);
          CREATE TABLE high PARTITION OF root FOR VALUES FROM (100) TO (200);
          INSERT INTO root SELECT n, 'old' FROM generate_series(1, 150) n`
        )
        const { target, workspace } = following
        yield* during(following, () => Effect.andThen(untilStreaming(following), untilSame(following, "root")))
        yield* workspace.sql("CREATE TABLE third PARTITION OF root FOR VALUES FROM (200) TO (300)")
        yield* workspace.sql("ALTER TABLE root DETACH PARTITION high")
        yield* workspace.sql("UPDATE high SET v = 'missed' WHERE id < 120; DELETE FROM high WHERE id = 130")
        yield* workspace.sql("INSERT INTO root VALUES (201, 'third')")
        yield* workspace.sql("ALTER TABLE root ATTACH PARTITION high FOR VALUES FROM (100) TO (200)")
        yield* during(following, () => untilSame(following, "root"))
        assert.strictEqual(target.count("TableSnapshotStarted"), 1)
      })
  )

  onServer(
    "postgres",
    "[P10] that cannot be read are told, with what to do, until they can be; the stream goes on",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(server, undefined, `${sql}; ALTER TABLE late DROP CONSTRAINT late_pkey`)
        const { target, workspace } = following
        yield* during(following, () =>
          Effect.gen(function* () {
            yield* untilStreaming(following)
            yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late`)
            yield* workspace.sql("INSERT INTO late VALUES (1000, 'new'); INSERT INTO early VALUES (2, 'b')")
            yield* isEventually("it is told", () =>
              target.log.some((line) =>
                /"public"."late": rows that it had before are missing.*no key.*PRIMARY KEY/is.test(line)
              )
            )
            yield* untilSame(following, "early")
            yield* workspace.sql("ALTER TABLE late ADD PRIMARY KEY (id)")
            yield* untilSame(following, "late")
          })
        )
      }),
    once
  )

  onServer(
    "postgres",
    "[P10] that join are told of by a stream that cannot be asked for rows, and by one to be let alone not at all",
    (server) =>
      Effect.gen(function* () {
        const deaf = yield* make(server)
        const plugin = Pgoutput.make({ publications: [deaf.workspace.publication], types: "text", messages: false })
        const { target, workspace } = deaf
        yield* during({ ...deaf, options: { plugin } }, () =>
          Effect.gen(function* () {
            yield* untilStreaming(deaf)
            yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late`)
            yield* workspace.sql("INSERT INTO late VALUES (1000, 'new')")
            yield* isEventually("it is told", () =>
              target.log.some((line) => /newly published: "public"."late".*do not come.*messages/.test(line))
            )
            // It may be told before the row comes, and what is not confirmed would come to the next run, too.
            yield* isEventually("the row itself comes", () => target.count("Commit") > 0)
            assert.strictEqual(target.rows("late").length, 1)
            yield* untilConfirmed(workspace, target.seen)
          })
        )

        const ignoring: Following = {
          workspace,
          target: new Target(),
          store: textStore(),
          options: { copy: { whenJoined: "ignore" } }
        }
        yield* workspace.sql("INSERT INTO early VALUES (2, 'b')")
        yield* during(ignoring, () => isEventually("a row comes", () => ignoring.target.count("Insert", "early") === 1))
        assert.deepStrictEqual(yield* ignoring.store.load(`covered/${workspace.slot}`), Option.none())
      }),
    once
  )

  onServer(
    "postgres",
    "[P10] that join a copy which is interrupted come whole with it, and are not read again",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(server)
        const { target, workspace } = following
        let isCompleted = false
        const stuck: Following = {
          ...following,
          before: (change) =>
            Effect.suspend(() => {
              isCompleted ||= change._tag === "SnapshotCompleted"
              return isCompleted ? Effect.never : Effect.void
            })
        }
        yield* during(stuck, () => isEventually("all but the last has come", () => isCompleted))
        yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late`)
        yield* during(following, () =>
          Effect.gen(function* () {
            yield* untilSame(following, "late")
            yield* untilStreaming(following)
            yield* workspace.sql("INSERT INTO late VALUES (1000, 'new')")
            yield* untilSame(following, "late")
          })
        )
        assert.strictEqual(target.count("TableSnapshotStarted"), 0)
      }),
    once
  )

  onServer(
    "postgres",
    "[P10] that join while it is taken by hand come, too",
    (server) =>
      Effect.gen(function* () {
        const following = yield* make(server)
        const { store, target, workspace } = following
        const stream = yield* LogicalStream.make({
          slot: workspace.slot,
          plugin: Pgoutput.make({ publications: [workspace.publication], types: "text" }),
          snapshot: "initial"
        })
        const taking = stream
          .follow(({ acknowledgeChange, changes }) =>
            Stream.runForEach(changes, (change) =>
              Effect.andThen(
                Effect.sync(() => target.apply(change)),
                acknowledgeChange(change)
              )
            )
          )
          .pipe(
            Effect.provideService(CheckpointStore.CheckpointStore, store),
            Effect.provide(walSender(workspace)),
            Effect.provide(target.logger)
          )
        yield* Effect.raceFirst(
          taking,
          Effect.gen(function* () {
            yield* untilStreaming(following)
            yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE late`)
            yield* workspace.sql("INSERT INTO late VALUES (1000, 'new')")
            yield* untilSame(following, "late")
          })
        )
      }),
    once
  )
})
