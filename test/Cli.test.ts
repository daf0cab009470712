/** The program `replicant` on a real server, as its user runs it. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { eventually } from "./support/eventually.ts"
import { type Replicant, replicant, startReplicant } from "./support/Replicant.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const orders = "CREATE TABLE orders (id bigint PRIMARY KEY, note text)"

const insert = (...ids: ReadonlyArray<number>) =>
  `INSERT INTO orders VALUES ${ids.map((id) => `(${id}, 'note ${id}')`).join(", ")}`

const environment = (workspace: Workspace) => ({ DATABASE_URL: workspace.url() })

const streamArgs = (workspace: Workspace, ...more: ReadonlyArray<string>) => [
  "stream",
  "--slot",
  workspace.slot,
  "--publication",
  workspace.publication,
  ...more
]

/** A slot in a workspace, made by the program. */
const makeSlot = Effect.fnUntraced(function* (workspace: Workspace) {
  const made = yield* replicant(["slot", "create", workspace.slot], environment(workspace))
  assert.strictEqual(made.code, 0, made.stderr)
})

const ids = (stdout: string): ReadonlyArray<string> =>
  stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line).row.id)

const isStreaming = (workspace: Workspace) =>
  eventually(workspace.isStreaming(workspace.slot), { what: "the slot is read" })

const slotsOf = (workspace: Workspace) =>
  `SELECT slot_name FROM pg_replication_slots WHERE database = '${workspace.database}'`

const isFree = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => assert.isFalse(slot?.active, "the slot is free at once"))

const saw = (running: Replicant, count: number) =>
  eventually(
    Effect.sync(() => running.lines().length >= count),
    { what: `${count} lines came` }
  )

describe("replicant stream", () => {
  onServer("postgres", "makes slot and publication, streams changes, and resumes where it stopped", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const args = ["stream", "--slot", workspace.slot, "--create", "--table", "orders"]
      const running = yield* startReplicant([...args, "--limit", "3"], environment(workspace))
      yield* isStreaming(workspace)
      yield* workspace.sql(insert(1))
      yield* workspace.sql("BEGIN; UPDATE orders SET note = NULL; DELETE FROM orders; COMMIT")
      const first = yield* running.ended
      assert.strictEqual(first.code, 0, first.stderr)
      const [inserted, updated, deleted] = running.lines()
      assert.deepInclude(inserted, { kind: "insert", schema: "public", table: "orders", ordinal: 0 })
      assert.deepStrictEqual(inserted?.row, { id: "1", note: "note 1" })
      assert.deepInclude(updated, { kind: "update", ordinal: 0, row: { id: "1", note: null } })
      assert.deepInclude(deleted, { kind: "delete", ordinal: 1, key: { id: "1" } })
      yield* isFree(workspace)

      yield* workspace.sql(insert(2, 3))
      const second = yield* replicant([...args, "--limit", "1"], environment(workspace))
      assert.strictEqual(second.code, 0, second.stderr)
      assert.deepStrictEqual(ids(second.stdout), ["2", "3"], "a transaction is never cut, and none comes twice")
    })
  )

  onServer(
    "postgres",
    "ends at --until-lsn, with everything before it and nothing after",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        yield* workspace.sql(insert(1))
        const until = yield* workspace.currentWalLsn
        yield* workspace.sql(insert(2))
        const args = streamArgs(workspace, "--until-lsn")
        const first = yield* replicant([...args, until], environment(workspace))
        assert.strictEqual(first.code, 0, first.stderr)
        assert.deepStrictEqual(ids(first.stdout), ["1"])
        // Nothing is published after the second insert: only a keep-alive can tell that the position is reached.
        yield* workspace.sql("SELECT pg_switch_wal()")
        const second = yield* replicant([...args, yield* workspace.currentWalLsn], environment(workspace))
        assert.strictEqual(second.code, 0, second.stderr)
        assert.deepStrictEqual(ids(second.stdout), ["2"])
      }),
    once
  )

  onServer(
    "postgres",
    "frames transactions with --boundaries, and shows people --pretty",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        yield* workspace.sql(insert(1))
        const framed = yield* replicant(streamArgs(workspace, "--limit", "1", "--boundaries"), environment(workspace))
        assert.deepStrictEqual(
          framed.stdout.split("\n").map((line) => (line === "" ? "" : JSON.parse(line).kind)),
          ["begin", "insert", "commit", ""]
        )
        yield* workspace.sql(insert(2))
        const pretty = yield* replicant(streamArgs(workspace, "--limit", "1", "--pretty"), environment(workspace))
        assert.match(pretty.stdout, /^-- transaction \d+, .*\n {2}\+ insert public.orders id=2 note="note 2"\n$/)
      }),
    once
  )

  onServer(
    "postgres",
    "ends well when its reader leaves, and has acknowledged nothing that was not written",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const running = yield* startReplicant(streamArgs(workspace), environment(workspace))
            yield* isStreaming(workspace)
            yield* workspace.sql(insert(1))
            yield* saw(running, 1)
            running.process.stdout.destroy()
            yield* workspace.sql(insert(2))
            const ended = yield* running.ended
            assert.strictEqual(ended.code, 0, ended.stderr)
            assert.strictEqual(ended.stderr, "")
          })
        )
        const again = yield* replicant(streamArgs(workspace, "--limit", "1"), environment(workspace))
        assert.deepStrictEqual(ids(again.stdout), ["2"])
      }),
    once
  )

  onServer(
    "postgres",
    "acknowledges nothing that a stalled reader has not taken, and keeps its connection",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        yield* workspace.sql("INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n")
        const before = (yield* workspace.findSlot())?.confirmed_flush_lsn
        const url = `${workspace.url()}?options=${encodeURIComponent("-c wal_sender_timeout=2s")}`
        const running = yield* startReplicant(streamArgs(workspace, "--limit", "1"), { DATABASE_URL: url })
        running.process.stdout.pause()
        yield* isStreaming(workspace)
        // Twice what the server bears, and more: only time can show that nothing happens.
        yield* Effect.sleep("5 seconds")
        const slot = yield* workspace.findSlot()
        assert.isTrue(slot?.active)
        assert.strictEqual(slot?.confirmed_flush_lsn, before)
        running.process.stdout.resume()
        const ended = yield* running.ended
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.strictEqual(ended.stderr, "", "no reconnect was needed")
        assert.lengthOf(running.lines(), 5000)
      }),
    once
  )

  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143]
  ] as const) {
    onServer(
      "postgres",
      `ends in good order on ${signal}: exit code ${code}, the slot free, nothing twice`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: orders })
          yield* makeSlot(workspace)
          const running = yield* startReplicant(streamArgs(workspace), environment(workspace))
          yield* isStreaming(workspace)
          yield* workspace.sql(insert(1))
          yield* saw(running, 1)
          yield* running.kill(signal)
          const ended = yield* running.ended
          assert.strictEqual(ended.code, code)
          assert.strictEqual(ended.stderr, "")
          yield* isFree(workspace)
          yield* workspace.sql(insert(2))
          const again = yield* replicant(streamArgs(workspace, "--limit", "1"), environment(workspace))
          assert.deepStrictEqual(ids(again.stdout), ["2"])
        }),
      once
    )
  }

  onServer(
    "postgres",
    "leaves nothing behind with --temporary",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const args = ["stream", "--temporary", "--create", "--table", "orders", "--limit", "1"]
        const running = yield* startReplicant(args, environment(workspace))
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql(insert(1))
        assert.strictEqual((yield* running.ended).code, 0)
        assert.deepStrictEqual(ids(running.stdout()), ["1"])
        yield* eventually(
          Effect.map(workspace.sql(slotsOf(workspace)), (slots) => slots.length === 0),
          { what: "no slot is left" }
        )
        const publications = yield* workspace.sql("SELECT pubname FROM pg_publication")
        assert.deepStrictEqual(publications, [{ pubname: workspace.publication }])
      }),
    once
  )

  onServer(
    "postgres",
    "never reads somebody's slot as a temporary one",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        const ended = yield* replicant(streamArgs(workspace, "--temporary"), environment(workspace))
        assert.strictEqual(ended.code, 1)
        assert.match(ended.stderr, /^error: replication slot "\w+" exists already\ncure: /)
      }),
    once
  )

  onServer(
    "postgres",
    "prints large transactions once they have committed, and prepared ones with what became of them",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* workspace.sql(`ALTER DATABASE ${workspace.database} SET logical_decoding_work_mem = '64kB'`)
        yield* makeSlot(workspace)
        const args = streamArgs(workspace, "--streaming", "parallel", "--two-phase")
        const running = yield* startReplicant(args, environment(workspace))
        yield* isStreaming(workspace)
        const gid = workspace.slot
        yield* workspace.sql("INSERT INTO orders SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i")
        const session = yield* workspace.session
        for (const statement of ["BEGIN", insert(3000), `PREPARE TRANSACTION '${gid}'`, `COMMIT PREPARED '${gid}'`]) {
          yield* session.query(statement)
        }
        yield* saw(running, 2003)
        const lines = running.lines().map((line) => line.gid ?? (line.row as { id: string }).id)
        const large = Array.from({ length: 2000 }, (_, index) => `${index + 1}`)
        assert.deepStrictEqual(lines, [...large, "3000", gid, gid])
        const kinds = running.lines().slice(-2)
        assert.deepStrictEqual(
          kinds.map(({ kind }) => kind),
          ["prepare", "commitPrepared"]
        )
      }),
    once
  )

  onServer("wal2json", "streams through wal2json too, and only the tables named", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: `${orders}; CREATE TABLE other (id int PRIMARY KEY)` })
      const args = ["stream", "--slot", workspace.slot, "--plugin", "wal2json", "--create", "--table", "orders"]
      const running = yield* startReplicant([...args, "--limit", "1"], environment(workspace))
      yield* isStreaming(workspace)
      yield* workspace.sql("INSERT INTO other VALUES (1)")
      yield* workspace.sql(insert(9_007_199_254_740_991))
      assert.strictEqual((yield* running.ended).code, 0, running.stderr())
      assert.deepStrictEqual(ids(running.stdout()), ["9007199254740991"])
    })
  )
})

describe("replicant, when something is wrong", () => {
  const failing = (
    title: string,
    args: (workspace: Workspace) => ReadonlyArray<string>,
    expected: RegExp,
    env: (workspace: Workspace) => Readonly<Record<string, string>> = environment
  ) =>
    onServer(
      "postgres",
      title,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: orders })
          const ended = yield* replicant(args(workspace), env(workspace))
          assert.strictEqual(ended.code, 1)
          assert.strictEqual(ended.stdout, "")
          assert.match(ended.stderr, expected)
          assert.lengthOf(ended.stderr.trimEnd().split("\n"), 2, "one line for the error, one for the cure")
          assert.notInclude(ended.stderr, "SECRET")
        }),
      once
    )

  failing(
    "tells a missing publication, and how to make it",
    (workspace) => ["stream", "--slot", workspace.slot, "--create", "--publication", "Nope"],
    /^error: no publication "Nope" in this database, which has .*"\ncure: name one that is there, or: replicant publication create Nope --table TABLE\n$/
  )
  failing(
    "tells a missing slot, and how to make it",
    (workspace) => streamArgs(workspace),
    /^error: replication slot "\w+" does not exist\ncure: replicant slot create \w+, or stream with --create/
  )
  failing(
    "tells a wrong password without repeating it",
    () => ["identify"],
    /^error: password authentication failed for user "postgres"\ncure: check user and password/,
    (workspace) => ({ DATABASE_URL: workspace.url("postgres", "SECRET") })
  )
  failing(
    "tells a database that is not there",
    () => ["identify"],
    /^error: FATAL 3D000: database "nope" does not exist\ncure: name a database that is there/,
    (workspace) => ({ DATABASE_URL: workspace.url().replace(/[^/]+$/, "nope") })
  )
  failing(
    "tells a table that is not there",
    () => ["publication", "create", "p", "--table", "nope"],
    /^error: ERROR 42P01: relation "public.nope" does not exist\ncure: check the table's name/
  )

  onServer(
    "postgres",
    "gives up on a slot that stays in use, and names who reads it",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        yield* makeSlot(workspace)
        yield* startReplicant(streamArgs(workspace), environment(workspace))
        yield* isStreaming(workspace)
        const ended = yield* replicant(streamArgs(workspace), environment(workspace))
        assert.strictEqual(ended.code, 1)
        assert.match(
          ended.stderr,
          /note: slot "\w+" is in use by pid \d+: waiting 10 s\nerror: .* in use by pid \d+\ncure: /
        )
      }),
    once
  )

  onServer(
    "postgres",
    "writes one JSON object to standard error with --json",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const ended = yield* replicant(streamArgs(workspace, "--json"), environment(workspace))
        assert.deepInclude(JSON.parse(ended.stderr), { level: "error", error: "SlotNotFound" })
      }),
    once
  )
})

describe("replicant slot, publication, identify", () => {
  onServer("postgres", "makes, lists and drops slots", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const env = environment(workspace)
      yield* makeSlot(workspace)
      const list = JSON.parse((yield* replicant(["slot", "list", "--json"], env)).stdout) as ReadonlyArray<object>
      const found = list.find((slot) => "name" in slot && slot.name === workspace.slot)
      const { database } = workspace
      assert.deepInclude(found, { type: "logical", plugin: "pgoutput", database, temporary: false, activePid: null })
      assert.include((yield* replicant(["slot", "list"], env)).stdout, workspace.slot)
      const again = yield* replicant(["slot", "create", workspace.slot], env)
      assert.deepStrictEqual([again.code, again.stdout], [1, ""])
      assert.strictEqual((yield* replicant(["slot", "drop", workspace.slot], env)).code, 0)
      assert.isUndefined(yield* workspace.findSlot())
      assert.strictEqual((yield* replicant(["slot", "drop", workspace.slot], env)).code, 1)
    })
  )

  onServer("postgres", "makes and lists publications", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const env = environment(workspace)
      const args = ["publication", "create", "Mine", "--table", "orders", "--operation", "insert"]
      assert.strictEqual((yield* replicant(args, env)).code, 0)
      const list = JSON.parse((yield* replicant(["publication", "list", "--json"], env)).stdout)
      assert.deepStrictEqual(
        list.find(({ name }: { name: string }) => name === "Mine"),
        {
          name: "Mine",
          allTables: false,
          operations: ["insert"],
          tables: [{ schema: "public", table: "orders", replicaIdentity: true }]
        }
      )
      assert.match((yield* replicant(["publication", "list"], env)).stdout, /^Mine +public.orders +insert +-$/m)
    })
  )

  onServer("postgres", "alters and drops publications, and shows which of their tables lack an identity", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: `${orders}; CREATE TABLE heap (n int)` })
      const env = environment(workspace)
      const alter = ["publication", "alter", "mine"]
      const missing = yield* replicant([...alter, "--add-table", "heap"], env)
      assert.match(missing.stderr, /no publication "mine"/)
      const make = ["publication", "create", "mine", "--table", "orders", "--operation", "insert"]
      assert.strictEqual((yield* replicant(make, env)).code, 0)
      assert.strictEqual((yield* replicant([...alter, "--add-table", "heap"], env)).code, 0)
      const refused = yield* replicant([...alter, "--operation", "insert", "--operation", "update"], env)
      assert.strictEqual(refused.code, 1)
      assert.include(refused.stderr, 'for want of a replica identity, on "public"."heap"')
      const widened = yield* replicant([...alter, "--operation", "update", "--without-identity", "--json"], env)
      assert.deepStrictEqual([widened.code, widened.stdout], [0, '{"altered":"mine"}\n'])
      const list = (yield* replicant(["publication", "list"], env)).stdout
      assert.match(list, /^mine +public.heap, public.orders +update +public.heap$/m)
      const less = yield* replicant([...alter, "--drop-table", "heap", "--operation", "delete"], env)
      assert.strictEqual(less.code, 0, less.stderr)
      assert.strictEqual((yield* replicant(alter, env)).code, 2, "nothing to alter")
      const dropped = yield* replicant(["publication", "drop", "mine", "--json"], env)
      assert.deepStrictEqual([dropped.code, dropped.stdout], [0, '{"dropped":"mine"}\n'])
      assert.strictEqual((yield* replicant(["publication", "drop", "mine"], env)).code, 1)
    })
  )

  onServer("postgres", "moves a slot on, over what nobody has confirmed only when told to, and never back", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const env = environment(workspace)
      yield* makeSlot(workspace)
      yield* workspace.sql(insert(1))
      const to = yield* workspace.currentWalLsn
      yield* workspace.sql(insert(2))
      const advance = ["slot", "advance", workspace.slot, "--to"]
      const asked = yield* replicant([...advance, to], env)
      assert.strictEqual(asked.code, 2)
      assert.match(asked.stderr, /would skip what was committed from .* of WAL.*\ncure: add --yes/)
      const moved = yield* replicant([...advance, to, "--yes", "--json"], env)
      assert.strictEqual(moved.code, 0, moved.stderr)
      assert.deepInclude(JSON.parse(moved.stdout), { advanced: workspace.slot, to })
      assert.match((yield* replicant([...advance, "0/1", "--yes"], env)).stderr, /never goes back/)
      assert.strictEqual((yield* replicant([...advance, to], env)).code, 0, "it is there")
      const read = yield* replicant(streamArgs(workspace, "--limit", "1"), env)
      assert.deepStrictEqual(ids(read.stdout), ["2"])
      const unknown = yield* replicant(["slot", "advance", "nobody_s", "--to", to], env)
      assert.include(unknown.stderr, "does not exist")
    })
  )

  onServer(
    "postgres",
    "[S13] makes no publication that the source's own UPDATE would fail under, unless told to",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: `${orders}; CREATE TABLE heap (n int)` })
        yield* workspace.sql("CREATE TABLE part (n int) PARTITION BY LIST (n)")
        yield* workspace.sql("CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)")
        const env = environment(workspace)
        const make = ["publication", "create", "mine", "--table", "orders"]
        const refused = yield* replicant([...make, "--table", "heap", "--table", "part"], env)
        assert.strictEqual(refused.code, 1)
        assert.match(refused.stderr, /for want of a replica identity, on "public"."heap", "public"."part1"\n/)
        assert.match(refused.stderr, /cure: ALTER TABLE "public"."heap" ADD PRIMARY KEY .* REPLICA IDENTITY FULL/)
        // PostgreSQL does not take a key that may be broken for a while.
        yield* workspace.sql("CREATE TABLE late (n int PRIMARY KEY DEFERRABLE)")
        const late = yield* replicant([...make, "--table", "late"], env)
        assert.include(late.stderr, 'for want of a replica identity, on "public"."late"')
        const stream = ["stream", "--slot", workspace.slot, "--create", "--table", "heap", "--snapshot", "only"]
        const streamed = yield* replicant(stream, env)
        assert.strictEqual(streamed.code, 1)
        assert.include(streamed.stderr, '"public"."heap"')
        assert.lengthOf(
          yield* workspace.sql(`SELECT FROM pg_publication WHERE pubname IN ('mine', '${workspace.slot}')`),
          0
        )
        assert.isUndefined(yield* workspace.findSlot())
        assert.strictEqual((yield* replicant(make, env)).code, 0)
        const inserts = ["publication", "create", "inserts", "--table", "heap", "--operation", "insert"]
        assert.strictEqual((yield* replicant(inserts, env)).code, 0)
        const nonetheless = yield* replicant([...stream, "--without-identity"], env)
        assert.strictEqual(nonetheless.code, 0, nonetheless.stderr)
      })
  )

  onServer(
    "postgres",
    "names the grant and the ownership that a publication needs, and those that are there",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const role = `${workspace.database}_maker`
        yield* Effect.acquireRelease(workspace.sql(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'maker'`), () =>
          Effect.ignore(workspace.sql(`DROP ROLE ${role}`))
        )
        const { host, port } = workspace.connection
        const env = { DATABASE_URL: `postgres://${role}:maker@${host}:${port}/${workspace.database}` }
        const denied = yield* replicant(["publication", "create", "mine", "--table", "orders"], env)
        assert.strictEqual(denied.code, 1)
        assert.include(denied.stderr, `cure: GRANT CREATE ON DATABASE "${workspace.database}" TO "${role}"`)
        assert.include(denied.stderr, "must own each table")
        const missing = yield* replicant(["stream", "--slot", workspace.slot, "--publication", "mnie"], env)
        assert.match(
          missing.stderr,
          new RegExp(`no publication "mnie" in this database, which has .*"${workspace.publication}"`)
        )
      })
  )

  onServer("postgres", "names, while it waits for it, the prepared transaction that a slot is not made for", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const gid = `left behind by ${workspace.database}`
      yield* workspace.sql(`BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION '${gid}'`)
      const rollback = Effect.ignore(workspace.sql(`ROLLBACK PREPARED '${gid}'`))
      yield* Effect.addFinalizer(() => rollback)
      const running = yield* startReplicant(streamArgs(workspace, "--create"), environment(workspace))
      yield* eventually(
        Effect.sync(() => running.stderr().includes(gid)),
        { what: "it is named" }
      )
      assert.include(running.stderr(), `ROLLBACK PREPARED '${gid}'`)
      yield* rollback
      yield* isStreaming(workspace)
    })
  )

  onServer("postgres", "tells which server answers, by PG variables as well", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const { host, port, user } = workspace.connection
      const env = { PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: server.password }
      const ended = yield* replicant(["identify", "--json"], { ...env, PGDATABASE: workspace.database })
      assert.deepInclude(JSON.parse(ended.stdout), { database: workspace.database, timeline: 1 })
      const byUrl = yield* replicant(["identify", "--url", `postgres:///${workspace.database}`], env)
      assert.include(byUrl.stdout, workspace.database, "a URL is filled up from the variables")
    })
  )
})

/** Directories that the embedded server makes: those of this run alone, in a place of its own. */
const demoDirectory = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-demo-test-"))
    Fs.chmodSync(directory, 0o755)
    return directory
  }),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

/** What is left there; npm keeps its own cache among temporary files. */
const left = (directory: string): ReadonlyArray<string> =>
  Fs.readdirSync(directory).filter((name) => name.startsWith("replicant-"))

describe("replicant demo", () => {
  onServer(
    "postgres",
    "streams a PostgreSQL of its own, and leaves no process and no directory",
    () =>
      Effect.gen(function* () {
        const directory = yield* demoDirectory
        const running = yield* startReplicant(["demo", "--seconds", "3", "--rate", "20"], { TMPDIR: directory })
        yield* eventually(
          Effect.sync(() => running.stdout().includes("insert")),
          { what: "the first change is on the screen" }
        )
        const data = Fs.readdirSync(directory)
        assert.lengthOf(data, 1)
        const pid = Number(
          Fs.readFileSync(Path.join(directory, data[0]!, "data", "postmaster.pid"), "utf8").split("\n")[0]
        )
        const ended = yield* running.ended
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.match(ended.stdout, /-- transaction \d+/)
        assert.match(ended.stdout, /~ update public.products .*\(unchanged: manual\)/)
        assert.match(ended.stderr, /\n\d+ changes in \d+ transactions, \d+ s\n$/)
        assert.deepStrictEqual(left(directory), [])
        assert.throws(() => process.kill(pid, 0), /ESRCH/)
      }),
    once
  )

  onServer(
    "postgres",
    "ends in good order on Ctrl-C, also under npm, which passes the signal on",
    () =>
      Effect.gen(function* () {
        const directory = yield* demoDirectory
        const root = fileURLToPath(new URL("..", import.meta.url))
        const env = { ...process.env, TMPDIR: directory, DATABASE_URL: "" }
        let text = ""
        let code: number | null | undefined
        const npm = yield* Effect.acquireRelease(
          // A group of its own, as a terminal gives one: its Ctrl-C goes to all of it.
          Effect.sync(() => spawn("npm", ["start", "--", "--rate", "20"], { cwd: root, env, detached: true })),
          (child) => Effect.sync(() => void (child.exitCode === null && child.kill("SIGKILL")))
        )
        npm.stdout.setEncoding("utf8").on("data", (part: string) => {
          text += part
        })
        npm.on("close", (ended) => {
          code = ended
        })
        yield* eventually(Effect.sync(() => text.includes("update")))
        process.kill(-npm.pid!, "SIGINT")
        yield* eventually(
          Effect.sync(() => code !== undefined),
          { what: "npm start ended" }
        )
        assert.deepStrictEqual(left(directory), [])
      }),
    once
  )

  onServer(
    "postgres",
    "shows a database that is named, and leaves it as it was",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: `${orders}; CREATE TABLE heap (n int)` })
        yield* workspace.sql(`DROP PUBLICATION ${workspace.publication}`)
        const running = yield* startReplicant(["demo", "--seconds", "12", "--json"], environment(workspace))
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql(insert(1))
        yield* workspace.sql("INSERT INTO heap VALUES (1); UPDATE heap SET n = 2; DELETE FROM heap")
        const ended = yield* running.ended
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.deepStrictEqual(ids(ended.stdout), ["1"])
        assert.match(ended.stderr, /making one of its tables that have a key, public.orders"/)
        assert.match(ended.stderr, /made publication \\"replicant_demo\\": it is dropped at the end/)
        yield* eventually(
          Effect.map(workspace.sql(slotsOf(workspace)), (slots) => slots.length === 0),
          { what: "no slot is left" }
        )
        assert.deepStrictEqual(yield* workspace.sql("SELECT pubname FROM pg_publication"), [])
      }),
    once
  )
})
