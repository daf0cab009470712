/** The examples are programs: each is run as a reader would, against a real server, and judged by what it leaves. */
import { type ChildProcess, spawn } from "node:child_process"
import { randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { eventually } from "./support/eventually.ts"
import { onServer } from "./support/Servers.ts"
import { untilGone } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

const orders = `CREATE TABLE orders (id int PRIMARY KEY, note text, big bigint);
  CREATE PUBLICATION orders FOR TABLE orders`

interface Program {
  readonly output: () => string
  /** Sends SIGINT, as Ctrl-C does, and gives the exit code. */
  readonly interrupt: Effect.Effect<number | null>
  /** Sends SIGKILL, which no program can answer. */
  readonly kill: Effect.Effect<unknown>
  readonly exitCode: Effect.Effect<number | null>
}

/** It is gone, and all that it said has come. */
const endOf = (child: ChildProcess): Effect.Effect<number | null> => {
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
  return Effect.promise(() => closed)
}

/** Runs `examples/<name>.ts` until the scope ends. */
const runExample = (
  name: string,
  environment: Readonly<Record<string, string>>,
  ...parameters: ReadonlyArray<string>
) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [`examples/${name}.ts`, ...parameters], {
        cwd: root,
        env: { ...process.env, ...environment }
      })
      return { child, exitCode: endOf(child) }
    }),
    ({ child, exitCode }) =>
      Effect.andThen(
        Effect.sync(() => child.kill("SIGKILL")),
        exitCode
      )
  ).pipe(
    Effect.map(({ child, exitCode }): Program => {
      let output = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => {
          output += text
        })
      }
      return {
        output: () => output,
        exitCode,
        kill: Effect.andThen(
          Effect.sync(() => child.kill("SIGKILL")),
          exitCode
        ),
        interrupt: Effect.andThen(
          Effect.sync(() => child.kill("SIGINT")),
          exitCode
        )
      }
    })
  )

const streaming = (workspace: Workspace, slot: string, program: Program) =>
  eventually(workspace.isStreaming(slot)).pipe(
    Effect.mapError((error) => new Error(`${error.message}\n${program.output()}`))
  )

const printed = (program: Program, pattern: RegExp) =>
  eventually(
    Effect.sync(() => pattern.test(program.output())),
    { what: `the program printed ${pattern}` }
  ).pipe(Effect.mapError((error) => new Error(`${error.message}\n${program.output()}`)))

const temporaryFile = (name: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-example-"))),
      (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
    ),
    (directory) => Path.join(directory, name)
  )

describe("the README's program, print-changes.ts", () => {
  onServer("postgres", "prints what is written, and after a restart only what came since", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const environment = { DATABASE_URL: workspace.url() }
      const first = yield* runExample("print-changes", environment)
      yield* streaming(workspace, "print_changes", first)
      yield* workspace.sql("INSERT INTO orders VALUES (1, 'tea', 9007199254740993)")
      yield* workspace.sql("UPDATE orders SET note = 'coffee'")
      yield* workspace.sql("DELETE FROM orders")
      yield* printed(first, /Insert orders .*id: 1, note: 'tea', big: 9007199254740993n/)
      yield* printed(first, /Update orders .*note: 'coffee'/)
      yield* printed(first, /Delete orders .*id: 1/)
      assert.strictEqual(yield* first.interrupt, 130)
      assert.isFalse((yield* workspace.findSlot("print_changes"))?.active, "the slot is free at once")
      yield* workspace.sql("INSERT INTO orders VALUES (2, 'water', NULL)")
      const second = yield* runExample("print-changes", environment)
      yield* printed(second, /note: 'water'/)
      assert.notMatch(second.output(), /tea|coffee/)
    })
  )

  onServer(
    "postgres",
    "ends with the error's name, and not with a password, where the publication is missing",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server)
        const program = yield* runExample("print-changes", { DATABASE_URL: workspace.url() })
        assert.strictEqual(yield* program.exitCode, 1)
        assert.match(program.output(), /PublicationNotFound/)
        assert.notInclude(program.output(), server.password)
      })
  )
})

interface AuditLine {
  readonly endLsn: string
  readonly entries: ReadonlyArray<{ readonly row?: { readonly id: number } }>
}

/** Half a line, which a crash may leave, is passed over, and so is one that is being written. */
const wholeLines = (path: string): ReadonlyArray<string> =>
  Fs.readFileSync(path, "utf8")
    .split("\n")
    .slice(0, -1)
    .filter((line) => line.endsWith("}"))

const auditLines = (path: string): ReadonlyArray<AuditLine> => wholeLines(path).map((line) => JSON.parse(line))

describe("audit-log.ts", () => {
  onServer("postgres", "has every transaction on disk, in commit order, though it is killed in between", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const path = yield* temporaryFile("audit.jsonl")
      const environment = { DATABASE_URL: workspace.url(), AUDIT_LOG: path }
      const holds = (id: number) =>
        eventually(
          Effect.sync(() => auditLines(path).some(({ entries }) => entries.some(({ row }) => row?.id === id))),
          { what: `a line with order ${id}` }
        )
      const first = yield* runExample("audit-log", environment)
      yield* streaming(workspace, "audit_log", first)
      yield* workspace.sql(
        "BEGIN; INSERT INTO orders VALUES (1, 'a', 1); INSERT INTO orders VALUES (2, 'b', 2); COMMIT"
      )
      yield* holds(2)
      yield* first.kill
      Fs.appendFileSync(path, '{"endLsn":"0000')
      yield* workspace.sql("INSERT INTO orders VALUES (3, 'c', 9007199254740993)")
      const second = yield* runExample("audit-log", environment)
      yield* holds(3)
      assert.strictEqual(yield* second.interrupt, 130)
      const lines = auditLines(path)
      const ends = lines.map(({ endLsn }) => endLsn)
      assert.deepStrictEqual(ends, [...ends].sort())
      assert.deepStrictEqual(
        // The kill may have come before the acknowledgement: then the first transaction is there twice.
        lines.filter(({ endLsn }, index) => ends.indexOf(endLsn) === index).map(({ entries }) => entries as unknown),
        [
          [
            { insert: "orders", row: { id: 1, note: "a", big: "1" } },
            { insert: "orders", row: { id: 2, note: "b", big: "2" } }
          ],
          [{ insert: "orders", row: { id: 3, note: "c", big: "9007199254740993" } }]
        ]
      )
    })
  )
})

describe("cache-invalidation.ts", () => {
  onServer("postgres", "makes its temporary slot again after the connection is lost", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const program = yield* runExample("cache-invalidation", { DATABASE_URL: workspace.url() })
      yield* streaming(workspace, "cache_invalidation", program)
      const before = (yield* workspace.findSlot("cache_invalidation"))!.active_pid
      yield* workspace.sql(`SELECT pg_terminate_backend(${before})`)
      yield* eventually(
        Effect.gen(function* () {
          const slot = yield* workspace.findSlot("cache_invalidation")
          return slot?.active_pid !== before && (yield* workspace.isStreaming("cache_invalidation"))
        }),
        { what: "a new slot on a new connection" }
      )
      assert.strictEqual(yield* program.interrupt, 130)
      yield* untilGone(workspace, "cache_invalidation")
    })
  )
})

describe("outbox.ts", () => {
  onServer("postgres", "tells of an order that was placed, and by whom, though no table is published", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE orders (item text); CREATE PUBLICATION outbox"
      })
      const environment = { DATABASE_URL: workspace.url() }
      const program = yield* runExample("outbox", environment)
      yield* streaming(workspace, "outbox", program)
      const writer = yield* runExample("outbox", environment, "place", "crème brûlée")
      assert.strictEqual(yield* writer.exitCode, 0, writer.output())
      yield* printed(program, /^ada ordered crème brûlée at \d{4}-\d\d-\d\dT/m)
      assert.strictEqual(yield* program.interrupt, 130)
      assert.deepStrictEqual(yield* workspace.sql("SELECT item FROM orders"), [{ item: "crème brûlée" }])
    })
  )
})

describe("replica.ts", () => {
  onServer(
    "postgres",
    "keeps another database in step, each transaction once, though it is killed in between",
    (server) =>
      Effect.gen(function* () {
        const tables = `CREATE TABLE orders (id int PRIMARY KEY, note text, doc json, parts float8[]);
        ALTER TABLE orders ALTER note SET STORAGE EXTERNAL`
        const source = yield* makeWorkspace(server, { sql: `${tables}; CREATE PUBLICATION orders FOR TABLE orders` })
        const target = yield* makeWorkspace(server, { sql: tables })
        const environment = { DATABASE_URL: source.url(), REPLICA_URL: target.url() }
        const rows = (workspace: Workspace) => workspace.sql("SELECT o::text AS row FROM orders o ORDER BY id")
        const inStep = (program: Program) =>
          eventually(
            Effect.gen(function* () {
              const [there, here] = yield* Effect.all([rows(source), rows(target)])
              return JSON.stringify(there) === JSON.stringify(here)
            }),
            { what: "both sides hold the same" }
          ).pipe(Effect.mapError((error) => new Error(`${error.message}\n${program.output()}`)))

        const first = yield* runExample("replica", environment)
        yield* streaming(source, "replica", first)
        yield* source.sql(`INSERT INTO orders SELECT i, repeat(md5(i::text), 200), '{"a": 1.10}', '{1e23,NaN}'
        FROM generate_series(1, 5) i`)
        yield* source.sql("UPDATE orders SET doc = NULL, parts[2] = -0.5 WHERE id = 1")
        yield* source.sql("UPDATE orders SET id = 20 WHERE id = 2; DELETE FROM orders WHERE id = 3")
        yield* inStep(first)
        // What it had no time to acknowledge comes again, and would be refused as a key that is taken.
        yield* source.sql("INSERT INTO orders VALUES (6, 'six')")
        yield* inStep(first)
        yield* first.kill
        yield* source.sql("INSERT INTO orders VALUES (7, E'a\\'b\\\\c')")
        const second = yield* runExample("replica", environment)
        yield* inStep(second)
        yield* source.sql("TRUNCATE orders; INSERT INTO orders VALUES (1, NULL)")
        yield* inStep(second)
        assert.strictEqual(yield* second.interrupt, 130)
      })
  )
})

describe("sink.ts", () => {
  onServer(
    "postgres",
    "opens its file for each connection, and has every change on disk once it is acknowledged",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const path = yield* temporaryFile("sink.jsonl")
        const program = yield* runExample("sink", { DATABASE_URL: workspace.url(), SINK_FILE: path })
        const lines = () => [...new Set(wholeLines(path))].map((line) => JSON.parse(line) as unknown)
        const holds = (count: number) =>
          eventually(
            Effect.sync(() => lines().length >= count),
            { what: `${count} lines` }
          )
        yield* streaming(workspace, "sink", program)
        yield* workspace.sql("INSERT INTO orders VALUES (1, 'tea', 9007199254740993)")
        yield* holds(1)
        const before = (yield* workspace.findSlot("sink"))!.active_pid
        yield* workspace.sql(`SELECT pg_terminate_backend(${before})`)
        yield* workspace.sql("UPDATE orders SET note = 'coffee'; DELETE FROM orders")
        yield* holds(3)
        assert.deepStrictEqual(lines(), [
          { change: "Insert", table: "orders", row: { id: 1, note: "tea", big: "9007199254740993" } },
          { change: "Update", table: "orders", row: { id: 1, note: "coffee", big: "9007199254740993" } },
          { change: "Delete", table: "orders", row: { id: 1 } }
        ])
        const emptyLines = Fs.readFileSync(path, "utf8")
          .split("\n")
          .slice(0, -1)
          .filter((line) => line === "")
        assert.isAtLeast(emptyLines.length, 2, "one for each connection")
        assert.strictEqual(yield* program.interrupt, 130)
        assert.isFalse((yield* workspace.findSlot("sink"))?.active)
      })
  )
})

describe("read-model.ts", () => {
  onServer("postgres", "has every order as it is, with its totals, though it is killed in between", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, {
        sql: `CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL, status text NOT NULL);
          INSERT INTO orders SELECT id, 'customer ' || id % 3, id, 'new' FROM generate_series(1, 300) id;
          CREATE PUBLICATION orders FOR TABLE orders`
      })
      const target = yield* makeWorkspace(server, {})
      const environment = { DATABASE_URL: source.url(), READ_MODEL_URL: target.url() }
      const first = yield* runExample("read-model", environment)
      yield* streaming(source, "read_model", first)
      for (let id = 301; id <= 360; id++) {
        yield* source.sql(`INSERT INTO orders VALUES (${id}, 'customer 9', ${id}, 'new');
          UPDATE orders SET status = 'paid' WHERE id = ${id - 200}; DELETE FROM orders WHERE id = ${id - 300}`)
        if (id === 330) yield* first.kill
      }
      const second = yield* runExample("read-model", environment)
      const rows = (of: Workspace, table: string) => of.sql(`SELECT * FROM ${table} ORDER BY id`)
      const expected = yield* rows(source, "orders")
      yield* eventually(
        Effect.map(rows(target, "order_list"), (kept) => JSON.stringify(kept) === JSON.stringify(expected)),
        { what: "the read model is what the table is" }
      )
      const totals = yield* target.sql("SELECT orders::text FROM open_totals WHERE customer = 'customer 9'")
      assert.deepStrictEqual(totals, [{ orders: "60" }])
      assert.strictEqual(yield* second.interrupt, 130)
    })
  )
})

describe("search-index.ts", () => {
  onServer(
    "postgres",
    "fills an index and keeps it so: it equals the table, though all is written to and it is killed in between",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TABLE articles (id int PRIMARY KEY, title text NOT NULL, body text NOT NULL);
            ALTER TABLE articles ALTER body SET STORAGE EXTERNAL; CREATE PUBLICATION articles FOR TABLE articles;
            INSERT INTO articles SELECT i, 'old tea ' || i, repeat('leaf ', 30) FROM generate_series(1, 20000) i`
        })
        const environment = {
          DATABASE_URL: workspace.url(),
          INDEX_FILE: yield* temporaryFile("index.jsonl"),
          CHECKPOINTS: yield* temporaryFile("checkpoints")
        }
        const found = Effect.fnUntraced(function* (word: string) {
          const asked = yield* runExample("search-index", environment, "find", word)
          yield* asked.exitCode
          return asked.output().trimEnd().split("\n").filter(Boolean).sort()
        }, Effect.scoped)
        const stored = Effect.map(
          workspace.sql("SELECT id, title, body FROM articles WHERE title LIKE '%tea%'"),
          (rows) => rows.map((row) => JSON.stringify(row)).sort()
        )
        const inStep = (program: Program) =>
          eventually(
            Effect.map(
              Effect.all([found("tea"), stored]),
              ([here, there]) => JSON.stringify(here) === JSON.stringify(there)
            ),
            { what: "the index equals the table" }
          ).pipe(Effect.mapError((error) => new Error(`${error.message.slice(0, 200)}\n${program.output()}`)))
        const holds = (least: number) =>
          Effect.sync(() => Fs.existsSync(environment.INDEX_FILE) && Fs.statSync(environment.INDEX_FILE).size > least)
        /** Amid the rows, as a rule; on a machine that is quick with them, and slow to look, behind them. */
        const isFilling = (least: number) =>
          eventually(
            Effect.gen(function* () {
              return (yield* holds(least)) || (yield* workspace.isStreaming("search_index"))
            }),
            { what: "the index is filled" }
          )
        const half = yield* runExample("search-index", environment)
        yield* isFilling(1_500_000)
        yield* workspace.sql("DELETE FROM articles WHERE id <= 100; INSERT INTO articles VALUES (0, 'tea', 'new')")
        yield* half.kill
        yield* workspace.sql("DELETE FROM articles WHERE id BETWEEN 101 AND 200")
        const before = Fs.statSync(environment.INDEX_FILE).size
        const first = yield* runExample("search-index", environment)
        yield* isFilling(before + 100_000)
        yield* workspace.sql("UPDATE articles SET title = 'fresh tea', body = repeat(title, 2) WHERE id % 7 = 0")
        yield* streaming(workspace, "search_index", first)
        yield* workspace.sql("UPDATE articles SET body = repeat(md5(id::text), 200) WHERE id % 1000 = 0")
        // What is stored out of line is not sent here, and must not be lost.
        yield* workspace.sql("UPDATE articles SET title = 'cold tea' WHERE id % 1000 = 0")
        yield* workspace.sql(
          "UPDATE articles SET id = -id WHERE id % 2000 = 0; UPDATE articles SET title = 'coffee' WHERE id = 999"
        )
        yield* inStep(first)
        yield* first.kill
        yield* workspace.sql(
          "INSERT INTO articles VALUES (30000, 'late tea', 'x'); DELETE FROM articles WHERE id = -2000"
        )
        const second = yield* runExample("search-index", environment)
        yield* inStep(second)
        assert.strictEqual(yield* second.interrupt, 130)
        assert.lengthOf(yield* found("coffee"), 1)
        const voided = Fs.readFileSync(environment.INDEX_FILE, "utf8").match(/"Clear"/g)
        assert.lengthOf(voided ?? [], 1, "what was killed half way was gone on with")
        assert.notInclude(second.output(), "begins anew")
      }),
    { timeout: 90_000 }
  )
})

/** Starts a runner on a port that it finds free. Which are, only who listens on one can say: so it is tried. */
const startRunner = Effect.fnUntraced(function* (workspace: Workspace) {
  while (true) {
    // Below those that the system hands out for outgoing connections.
    const port = randomInt(15_000, 32_000)
    const runner = yield* runExample("cluster", { DATABASE_URL: workspace.url() }, String(port))
    yield* printed(runner, /Listening on|EADDRINUSE/)
    if (runner.output().includes("Listening on")) return runner
  }
})

describe("cluster.ts", () => {
  onServer("postgres", "follows in one of its runners, and in another when that has left", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      yield* workspace.sql("SELECT pg_create_logical_replication_slot('orders_cluster', 'pgoutput')")
      const runners = [yield* startRunner(workspace), yield* startRunner(workspace)] as const
      const prints = (runner: Program, what: string) => runner.output().includes(what)
      /** The runner that prints what is written now, and the other. */
      const followed = (what: string) =>
        Effect.gen(function* () {
          yield* workspace.sql("INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders")
          return yield* eventually(
            Effect.sync(() => {
              const index = runners.findIndex((runner) => prints(runner, what))
              return index < 0 ? undefined : ([runners[index]!, runners[1 - index]!] as const)
            }),
            { what: "one of them follows" }
          ).pipe(
            Effect.mapError(
              (error) => new Error([error.message, ...runners.map(({ output }) => output())].join("\n---\n"))
            )
          )
        })
      const [owner, other] = yield* followed("Insert")
      yield* owner.interrupt
      yield* workspace.sql("DELETE FROM orders")
      yield* printed(other, /Delete/)
    })
  )
})
