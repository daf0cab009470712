/**
 * What a real server said, mangled on its way: the client fails by type, lets go of its slot, and has acknowledged
 * nothing that it did not understand, so that the next connection loses nothing. And what a real server sends that is
 * odd, and right.
 *
 * Every mangle of every kind of message is tried in packages/core/test/faults, against a walsender of our own.
 */
import { assert, describe } from "@effect/vitest"
import { type Change, Lsn, nextLsn, Pgoutput, type Row, WalSender, withLogicalStream } from "@replicant/core"
import { type CopyBoth, Frames } from "@replicant/core/driver"
import { Effect, Fiber, Layer, Logger, References } from "effect"
import { maxFrameLength } from "../../packages/core/test/faults/Hostile.ts"
import { type Mangle, mangles } from "../../packages/core/test/faults/mangles.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { replicant } from "../support/Replicant.ts"
import { once } from "../support/Servers.ts"
import { confirmed, isFree, makeSlot } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"

/** Passes a stream on frame by frame, and mangles the first whose payload has `text` in it. */
const mangling = (inner: ReturnType<typeof walSender>, text: string, mangle: Mangle) =>
  Layer.effect(
    WalSender,
    Effect.map(WalSender, (sender) => {
      let isDone = false
      const mangled = (copy: CopyBoth): CopyBoth => {
        const frames = new Frames()
        return {
          ...copy,
          pull: Effect.map(copy.pull, (read) => {
            const out: Array<Uint8Array> = []
            frames.push(read.slice())
            while (frames.next()) {
              const payload = frames.bytes.slice(frames.start, frames.end)
              const isIt = !isDone && Buffer.from(payload).includes(text)
              if (isIt) isDone = true
              out.push(isIt ? mangle(payload) : frames.bytes.slice(frames.start - 5, frames.end))
            }
            // What is behind a length that lies must come, or the client waits for it.
            return new Uint8Array(Buffer.concat(isDone ? [...out, new Uint8Array(maxFrameLength)] : out))
          })
        }
      }
      return {
        ...sender,
        connect: Effect.map(sender.connect, (connection) => ({
          ...connection,
          copyBoth: (command: string) => Effect.map(connection.copyBoth(command), mangled)
        }))
      }
    })
  ).pipe(Layer.provide(inner))

const words = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.word)

const table = "CREATE TABLE t (id int PRIMARY KEY, word text)"

describe("a message of a real server", () => {
  const some = Object.entries(mangles).filter((_, index) => index % 8 === 1)

  const check = (chosen: ReadonlyArray<readonly [what: string, mangle: Mangle]>) =>
    Effect.fnUntraced(function* (server: Parameters<typeof makeWorkspace>[0]) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const created = yield* follow(workspace)
      yield* created.stop
      let id = 0
      for (const [what, mangle] of chosen) {
        yield* eventually(isFree(workspace), { what: "the slot is free" })
        const [before, broken, after] = ["before", "broken", "after"].map((when) => `${when}-${id}`)
        yield* workspace.sql(`INSERT INTO t VALUES (${++id}, '${before}')`)
        yield* workspace.sql(`INSERT INTO t VALUES (${++id}, 'first'), (${++id}, '${broken}'), (${++id}, 'last')`)
        const end = Lsn.fromString(yield* workspace.currentWalLsn)!
        const layer = mangling(walSender(workspace), broken!, mangle)
        const damaged = yield* follow(workspace, {
          layer,
          options: { memory: { maxFrameLength }, createSlot: undefined }
        })
        const error = yield* damaged.failure
        assert.strictEqual(error._tag, "DecodeError", what)
        assert.notInclude(words(damaged.changes), broken)
        yield* eventually(isFree(workspace), { what: "the slot is free" })
        assert.isTrue((yield* confirmed(workspace)) < end, `${what} is acknowledged`)

        yield* workspace.sql(`INSERT INTO t VALUES (${++id}, '${after}')`)
        const good = yield* follow(workspace)
        yield* eventually(
          Effect.sync(() => words(good.changes).includes(after) && good.changes.at(-1)?._tag === "Commit"),
          { what: `the stream goes on after ${what}` }
        )
        yield* good.stop
        const arrived = words(good.changes).filter((word) => word !== before)
        assert.deepStrictEqual(arrived, ["first", broken, "last", after], `whole, after ${what}`)
      }
    })

  fault(["F1", "F2", "F3"], "mangled on its way costs no change, in some ways", check(some), { timeout: 120_000 })
  fault(["F1", "F2", "F3"], "mangled on its way costs no change, in forty ways", check(Object.entries(mangles)), {
    ...once,
    timeout: 240_000
  })
})

describe("notices among changes", () => {
  fault("F8", "are logged by the thousand, and the stream goes on", (server) =>
    Effect.gen(function* () {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => {
        logged.push([message].flat().map(String).join(" "))
      })
      yield* Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const layer = walSender(workspace, { settings: { client_min_messages: "debug5" } })
        const stream = yield* follow(workspace, { layer })
        for (let id = 1; id <= 50; id++) yield* workspace.sql(`INSERT INTO t VALUES (${id}, 'x')`)
        yield* stream.saw("Commit", 50)
        assert.lengthOf(words(stream.changes), 50)
        yield* stream.stop
      }).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.MinimumLogLevel, "All"))
      assert.isAbove(logged.filter((text) => text.startsWith("DEBUG")).length, 10)
      for (const text of logged) assert.notMatch(text, /\p{Cc}/u)
    })
  )
})

describe("a value that is not sent as it is unchanged", () => {
  fault("D6", "is absent and named, and of a key it is what the old row tells", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE t (id text PRIMARY KEY, word text, n int);
          ALTER TABLE t ALTER id SET STORAGE EXTERNAL, ALTER word SET STORAGE EXTERNAL`
      })
      const stream = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (repeat('k', 2500), repeat('w', 5000), 1)")
      yield* workspace.sql("UPDATE t SET n = 2")
      yield* workspace.sql("ALTER TABLE t REPLICA IDENTITY FULL")
      yield* workspace.sql("UPDATE t SET n = 3")
      yield* stream.saw("Update", 2)
      const updates = stream.changes.filter((change) => change._tag === "Update")
      const [byKey, full] = updates
      assert.deepStrictEqual(byKey?.unchanged, ["word"])
      assert.deepStrictEqual(byKey?.row, { id: "k".repeat(2500), n: 2 })
      assert.deepStrictEqual(byKey?.old, { _tag: "Key", row: { id: "k".repeat(2500) } })
      assert.deepStrictEqual(full?.unchanged, [])
      assert.deepStrictEqual(full?.row, { id: "k".repeat(2500), word: "w".repeat(5000), n: 3 })
      yield* stream.stop
    })
  )
})

describe("a type that is nobody's", () => {
  fault("D7", "is text: enums, also a label added while it streams, domains, composites and ranges", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TYPE mood AS ENUM ('sad');
          CREATE TYPE point3 AS (x int, y int, z text);
          CREATE DOMAIN word AS text;
          CREATE TYPE floats AS RANGE (subtype = float8);
          CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], p point3, w word, r floats)`
      })
      const stream = yield* follow(workspace)
      yield* workspace.sql(`INSERT INTO t VALUES (1, 'sad', '{sad}', '(1,2,"a b")', 'w', '[1,2)')`)
      yield* stream.saw("Commit", 1)
      yield* workspace.sql("ALTER TYPE mood ADD VALUE 'added later'")
      yield* workspace.sql(`INSERT INTO t VALUES (2, 'added later', '{sad,"added later"}', NULL, '', NULL)`)
      yield* stream.saw("Insert", 2)
      assert.deepStrictEqual(insertedRows(stream.changes), [
        { id: 1, m: "sad", ms: "{sad}", p: '(1,2,"a b")', w: "w", r: "[1,2)" },
        { id: 2, m: "added later", ms: '{sad,"added later"}', p: null, w: "", r: null }
      ])
      yield* stream.stop
    })
  )
})

describe("names that mean harm", () => {
  const escape = "\u001b[2Jred\u001b]0;owned\u0007\nfake: line"
  const names = ["__proto__", "constructor", "hasOwnProperty", "prototype", escape]
  const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`
  const sql = names
    .map((name) => `CREATE TABLE ${quoted(name)} (${names.map((column) => `${quoted(column)} text`).join(", ")})`)
    .join(";")

  fault(["D8", "X8"], "of tables and columns arrive exactly, and touch no prototype", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql })
      const stream = yield* follow(workspace)
      const values = names.map((_, index) => `'v${index}'`).join(", ")
      for (const name of names) yield* workspace.sql(`INSERT INTO ${quoted(name)} VALUES (${values})`)
      yield* stream.saw("Insert", names.length)
      const inserts = stream.changes.filter((change) => change._tag === "Insert")
      assert.deepStrictEqual(
        inserts.map(({ relation }) => relation.name),
        names
      )
      for (const { row } of inserts as ReadonlyArray<{ readonly row: Row }>) {
        assert.deepStrictEqual(Object.keys(row), names)
        assert.deepStrictEqual(
          names.map((name) => Object.getOwnPropertyDescriptor(row, name)?.value),
          names.map((_, index) => `v${index}`)
        )
        assert.strictEqual(Object.getPrototypeOf(row), Object.prototype)
      }
      assert.isEmpty(Object.keys(Object.prototype))
      yield* stream.stop
    })
  )

  fault(
    "X8",
    "are escaped by the command, on standard output and in what it complains of",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql })
        yield* makeSlot(workspace)
        const environment = { DATABASE_URL: workspace.url() }
        const args = ["stream", "--slot", workspace.slot, "--publication", workspace.publication, "--boundaries"]
        for (const format of [[], ["--pretty"]]) {
          yield* workspace.sql(`INSERT INTO ${quoted(escape)} (${quoted(escape)}) VALUES (E'${escape}')`)
          yield* workspace.sql(`SELECT pg_logical_emit_message(false, E'${escape}', E'${escape}')`)
          yield* workspace.sql(`ALTER TABLE ${quoted(escape)} ADD ${quoted(`${escape}${format.length}`)} int`)
          yield* workspace.sql(`INSERT INTO ${quoted(escape)} (${quoted(escape)}) VALUES (E'${escape}')`)
          const until = yield* workspace.currentWalLsn
          const ended = yield* replicant([...args, "--until-lsn", until, ...format], environment)
          assert.strictEqual(ended.code, 0, ended.stderr)
          assert.include(ended.stdout, "owned")
          for (const line of ended.stdout.split("\n")) {
            assert.notMatch(line, /\p{Cc}/u)
            assert.isFalse(line.startsWith("fake"), "no line of its own")
          }
        }
        for (const json of [[], ["--json"]]) {
          const noDatabase = workspace.url().replace(workspace.database, encodeURIComponent(escape))
          const failures = [
            ["identify", "--url", noDatabase],
            ["publication", "create", "p", "--table", `${escape}.t`],
            ["stream", "--slot", "s", "--publication", escape],
            ["slot", "drop", escape]
          ]
          for (const failure of failures) {
            const ended = yield* replicant([...failure, ...json], environment)
            assert.notStrictEqual(ended.code, 0)
            for (const line of ended.stderr.trimEnd().split("\n")) {
              assert.notMatch(line, /\p{Cc}/u, failure.join(" "))
              assert.isFalse(line.startsWith("fake"))
            }
          }
        }
      }),
    { ...once, timeout: 120_000 }
  )
})

describe("a JSON value that nests as deep as the server takes", () => {
  fault("X8", "arrives, and overflows nothing", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, j json)" })
      const stream = yield* follow(workspace)
      const depth = 5000
      yield* workspace.sql(`INSERT INTO t VALUES (1, (repeat('[', ${depth}) || repeat(']', ${depth}))::json)`)
      yield* stream.saw("Insert", 1)
      let levels = 0
      for (let at: unknown = insertedRows(stream.changes)[0]?.j; Array.isArray(at); at = at[0]) levels++
      assert.strictEqual(levels, depth)
      yield* stream.stop
    })
  )
})

describe("a stream whose frames are limited", () => {
  fault("F1", "takes what fits, and fails before it has read what does not", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const options = { ...logicalOptions(workspace), memory: { maxFrameLength: 100_000 } }
      const sizes: Array<number> = []
      const fiber = yield* withLogicalStream(options, (change) => {
        if (change._tag === "Insert") sizes.push(String(change.row.word).length)
        return Effect.succeed(nextLsn(change))
      }).pipe(Effect.provide(walSender(workspace)), Effect.flip, Effect.forkScoped)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t VALUES (1, repeat('x', 99000))")
      yield* eventually(Effect.sync(() => sizes.length === 1))
      yield* workspace.sql("INSERT INTO t VALUES (2, repeat('x', 101000))")
      const error = yield* Fiber.join(fiber)
      assert(error._tag === "DecodeError")
      assert.match(error.problem, /claims 101\d\d\d bytes; 4 to 100000 can be/)
      assert.deepStrictEqual(sizes, [99_000])
      yield* eventually(isFree(workspace), { what: "the slot is free" })
      const plugin = Pgoutput.make({ publications: [workspace.publication] })
      const again = yield* follow(workspace, { options: { plugin } })
      // The first may come again: the failure may have been quicker than its acknowledgement.
      yield* eventually(Effect.sync(() => insertedRows(again.changes).some(({ id }) => id === 2)))
      yield* again.stop
    })
  )
})
