/** What a probe is told of streams on a real server: over HTTP, by a program and by the commands. */
import { tmpdir } from "node:os"
import { assert, describe } from "@effect/vitest"
import { LogicalStream, nextLsn } from "@replicant/core"
import { Doctor, Metrics, Operations } from "@replicant/core/operations"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Latch, Schema } from "effect"
import { eventually, patience } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { listensOn, served } from "./support/Listening.ts"
import { replicant, startReplicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const tables = "CREATE TABLE items (id int PRIMARY KEY, secret text)"
const secret = "whatever a row may hold"

const ask = Effect.fnUntraced(function* (url: string) {
  const response = yield* Effect.promise(() => fetch(url))
  const text = yield* Effect.promise(() => response.text())
  assert.notInclude(text, secret)
  assert.strictEqual(response.headers.get("cache-control"), "no-store")
  return { status: response.status, text }
})

/** What `/readyz` says, whose code and word must agree. */
const readiness = (url: string) =>
  Effect.map(ask(`${url}/readyz`), ({ status, text }) => {
    const found = Schema.decodeUnknownSync(Operations.Readiness)(JSON.parse(text))
    assert.strictEqual(status, found.status === "failing" ? 503 : 200)
    return found
  })

const isOk = (url: string, what: string) =>
  eventually(
    Effect.map(readiness(url), (found) => (found.status === "ok" ? found : false)),
    { what }
  )

const isIll = (url: string, what: string) =>
  eventually(
    Effect.map(readiness(url), (found) => (found.status === "ok" ? false : found)),
    { what }
  )

/** What it is failing of; from when on it is ill it is never said to be well. */
const failingOf = Effect.fnUntraced(function* (url: string, what: string) {
  yield* isIll(url, what)
  return yield* eventually(
    Effect.map(readiness(url), (found) => {
      assert.notStrictEqual(found.status, "ok")
      return found.status === "failing" ? found.streams[0] : undefined
    }),
    { what: `${what}, for as long as its threshold` }
  )
})

/** Reads what is sent from there until it has said so. */
const tells = (url: string, what: RegExp) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { signal })
    let said = ""
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      said += chunk
      if (what.test(said)) return
    }
    assert.match(said, what)
  }).pipe(Effect.timeout(patience))

describe("Operations", () => {
  onServer(
    "postgres",
    "a stuck handler and a lost server are never ok, and not ready from their threshold on",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const proxy = yield* FaultProxy.make(server)
        const gate = yield* Latch.make(true)
        const stream = yield* LogicalStream.make({
          ...logicalOptions(workspace),
          health: {
            handlerStuck: { degraded: 1, failing: 3 },
            notStreaming: { degraded: 0, failing: 3 },
            // Of these two alone is told here.
            attempts: { degraded: Number.POSITIVE_INFINITY, failing: Number.POSITIVE_INFINITY }
          }
        })
        const url = yield* served(stream)
        assert.notStrictEqual((yield* readiness(url)).status, "ok")
        yield* stream
          .run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change))))
          .pipe(Effect.provide(walSender(workspace, { host: proxy.host, port: proxy.port })), Effect.forkScoped)
        yield* isOk(url, "it streams")

        yield* gate.close
        yield* workspace.sql(`INSERT INTO items VALUES (1, '${secret}')`)
        const stuck = yield* failingOf(url, "the handler is stuck")
        assert.deepInclude(stuck, { slot: workspace.slot })
        assert.strictEqual(stuck.reasons[0]?.code, "HandlerStuck")
        assert.strictEqual((yield* ask(`${url}/livez`)).status, 200)
        yield* gate.open
        yield* isOk(url, "the handler has ended")

        yield* proxy.refuse
        yield* proxy.cut("rst")
        const lost = yield* failingOf(url, "the server is lost")
        assert.strictEqual(lost.reasons[0]?.code, "NotStreaming")
        yield* proxy.pass
        yield* isOk(url, "the server is back")

        const { text } = yield* ask(`${url}/metrics`)
        for (const [name, { kind, label, mayBeAbsent }] of Metrics.table) {
          if (kind !== "Gauge" || label !== undefined || mayBeAbsent || name === "replicant_lease_held") continue
          assert.match(text, new RegExp(`^${name}\\{.*slot="${workspace.slot}".*\\} \\S+$`, "m"))
        }
      })
  )

  onServer("postgres", "replicant stream --listen tells how it is, and ends as it does without", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const args = ["stream", "--slot", workspace.slot, "--publication", workspace.publication, "--create"]
      const environment = { DATABASE_URL: workspace.url() }
      const nowhere = yield* replicant([...args, "--listen", "0", "--wal-directory", "/nowhere"], environment)
      assert.strictEqual(nowhere.code, 2, nowhere.stderr)
      assert.match(nowhere.stderr, /--wal-directory \/nowhere: no such directory/)
      const alone = yield* replicant([...args, "--wal-directory", tmpdir()], environment)
      assert.match(alone.stderr, /--wal-directory is for what --listen tells/)
      const running = yield* startReplicant([...args, "--listen", "0", "--wal-directory", tmpdir()], environment)
      const url = yield* listensOn(running)
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/)
      const ready = yield* isOk(url, "it streams")
      assert.strictEqual(ready.streams[0]?.slot, workspace.slot)
      yield* workspace.sql(`INSERT INTO items VALUES (1, '${secret}')`)
      yield* eventually(
        Effect.sync(() => running.stdout().includes(secret)),
        { what: "the row is printed" }
      )
      assert.match((yield* ask(`${url}/metrics`)).text, /^replicant_changes_total\{.*\} [1-9]/m)
      const page = yield* ask(`${url}/`)
      assert.include(page.text, '<script type="module" src="/page.js">')
      yield* tells(`${url}/events`, /"budget":\{[^}]*"freeBytes":\d/)
      const looked = Schema.decodeUnknownSync(Doctor.Report)(JSON.parse((yield* ask(`${url}/doctor/0`)).text))
      assert.strictEqual(looked.server?.database, workspace.database)
      assert.include(looked.checked, "slot.lost")
      yield* running.kill("SIGTERM")
      assert.strictEqual((yield* running.ended).code, 143)
    })
  )

  onServer(
    "postgres",
    "replicant copy --listen is not ok while the target is lost, and is again once it is back",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: tables })
        const target = yield* makeWorkspace(server, { sql: tables })
        const proxy = yield* FaultProxy.make(server)
        const to = new URL(target.url())
        to.hostname = proxy.host
        to.port = String(proxy.port)
        const args = ["copy", "--publication", source.publication, "--slot", source.slot, "--create", "--listen", "0"]
        const running = yield* startReplicant(args, { DATABASE_URL: source.url(), TARGET_URL: to.href })
        const url = yield* listensOn(running)
        yield* eventually(source.isStreaming(source.slot), { what: "its first copy is done" })
        yield* isOk(url, "it streams")
        yield* proxy.refuse
        yield* proxy.cut("rst")
        yield* source.sql(`INSERT INTO items VALUES (1, '${secret}')`)
        const lost = yield* isIll(url, "the target is lost")
        assert.strictEqual(lost.streams[0]?.slot, source.slot)
        yield* proxy.pass
        yield* eventually(
          Effect.map(target.sql("SELECT FROM items"), (rows) => rows.length === 1),
          { what: "the row is there" }
        )
        yield* isOk(url, "it goes on")
        assert.match((yield* ask(`${url}/metrics`)).text, /^replicant_copy_applied_lsn\{.*\} [1-9]/m)
        yield* running.kill("SIGTERM")
        assert.strictEqual((yield* running.ended).code, 0)
      })
  )
})
