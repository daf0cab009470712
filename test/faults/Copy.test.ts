/**
 * A copy that is killed: the process, its sessions at the source and at the target, at any moment of the first copy and of
 * the stream, while rows are written, rewritten, moved to other keys, deleted and truncated. In the end both are equal.
 */
import { randomInt } from "node:crypto"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import type { Copy } from "@replicant/node"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Fiber, Redacted, Ref } from "effect"
import { Random } from "../../packages/core/test/support/Random.ts"
import { caughtUp, copyOptions, markTable, startCopy } from "../support/Copying.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { runWorkload, workloadTables } from "../support/RandomWorkload.ts"
import { type Replicant, startReplicant } from "../support/Replicant.ts"
import { once, type Server } from "../support/Servers.ts"
import { failOver, trustingServer } from "../support/Standby.ts"
import { checksums } from "../support/TableChecksum.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const firstSeed = process.env.COPY_SEED === undefined ? randomInt(2 ** 31) : Number(process.env.COPY_SEED)
const runCopy = fileURLToPath(new URL("../support/runCopy.ts", import.meta.url))

const kills = 4

const rounds = Number(process.env.COPY_ROUNDS ?? 3)

/** Beside the workload's tables: pages enough for a copy to be under way, and a second key whose values move. */
const bulk = `CREATE TABLE bulk (id int PRIMARY KEY, code int UNIQUE, body text, n int DEFAULT 0);
  ALTER TABLE bulk ALTER body SET STORAGE EXTERNAL; ${markTable}`

const fillBulk = "INSERT INTO bulk SELECT n, n, repeat(md5(n::text), 10 + n % 80) FROM generate_series(1, 12000) n"

/** Changes all over the table: rows that are moved, deleted, made again, and whose unique values pass to others. */
const stirBulk = (random: Random): string => {
  const id = () => 1 + random.below(12000)
  const from = id()
  return random.pick([
    `UPDATE bulk SET n = n + 1 WHERE id BETWEEN ${from} AND ${from + 40}`,
    `UPDATE bulk SET id = id + 100000, n = 0 WHERE id BETWEEN ${from} AND ${from + 5}`,
    `DELETE FROM bulk WHERE id BETWEEN ${from} AND ${from + 5}`,
    `WITH gone AS (DELETE FROM bulk WHERE id = ${from} RETURNING code) INSERT INTO bulk SELECT -code, NULL, 'new', 1 FROM gone WHERE code IS NOT NULL ON CONFLICT DO NOTHING`,
    `WITH gone AS (DELETE FROM bulk WHERE id = ${from} RETURNING *) INSERT INTO bulk (id, body) SELECT id, body || '!' FROM gone`
  ])
}

/** The same value by turns for other rows: a newer row may have what an older version of another had. */
const passCode = (random: Random): string => {
  const id = 1 + random.below(11990)
  return `BEGIN; UPDATE bulk SET code = NULL WHERE id = ${id} AND code = ${id};
    UPDATE bulk SET code = ${id} WHERE id = ${id + 7} AND NOT EXISTS (SELECT FROM bulk WHERE code = ${id}); COMMIT`
}

const killers: { readonly [what: string]: (source: Workspace, target: Workspace) => string } = {
  source: (source) =>
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${source.database}' AND application_name = 'replicant'`,
  target: (_, target) =>
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${target.database}' AND application_name = 'replicant'`
}

const round = Effect.fnUntraced(function* (server: Server, seed: number) {
  const random = new Random(seed)
  const tables = `${workloadTables({})}; ${bulk}`
  const source = yield* makeWorkspace(server, { sql: tables })
  const target = yield* makeWorkspace(server, { sql: tables })
  yield* source.sql(fillBulk)
  yield* runWorkload(source.session, { seed, statements: 300 })

  const args = ["copy", "--from", source.url(), "--publication", source.publication, "--slot", source.slot, "--create"]
  const inPieces = JSON.stringify({
    from: source.url(),
    to: target.url(),
    publication: source.publication,
    slot: source.slot,
    piecePages: 16
  })
  // The command copies the large table in two pieces, the program in a hundred: they take over from each other.
  const start = Effect.suspend(() =>
    random.chance(40) ? startReplicant(args, { TARGET_URL: target.url() }) : startReplicant([inPieces], {}, runCopy)
  )
  const said: Array<string> = []
  const running = yield* Ref.make<Replicant>(yield* start)
  const done: Array<string> = []
  // Killed, or cut off while it was still checking, which it does not try twice: it is started again, as a service would.
  const supervising = Effect.gen(function* () {
    while (true) {
      said.push((yield* Effect.retry((yield* Ref.get(running)).ended, { times: 1000 })).stderr)
      yield* Ref.set(running, yield* start)
    }
  })
  const supervisor = yield* Effect.forkScoped(supervising)
  const killing = Effect.gen(function* () {
    for (let kill = 0; kill < kills; kill++) {
      // Any moment will do, and each round has others: that is what is tried here.
      yield* Effect.sleep(100 + random.below(800))
      const what = random.pick(["process", "process", "source", "target"])
      done.push(what)
      const killer = killers[what]
      if (killer !== undefined) yield* source.sql(killer(source, target))
      else yield* (yield* Ref.get(running)).kill("SIGKILL")
    }
  })
  const stirring = Effect.gen(function* () {
    const session = yield* source.session
    while (done.length < kills) {
      yield* session.query(random.chance(20) ? passCode(random) : stirBulk(random))
      yield* Effect.sleep(5)
    }
  })
  const work = yield* Effect.forkScoped(
    Effect.all([runWorkload(source.session, { seed: seed + 1, statements: 700 }), stirring], {
      concurrency: "unbounded"
    })
  )
  yield* killing
  yield* Fiber.join(work)
  const label = () => `COPY_SEED=${seed}, killed: ${done.join(", ")}; they said: ${said.join("\n--\n")}`
  yield* caughtUp(source, target).pipe(Effect.mapError((error) => new Error(`${error}; ${label()}`)))
  assert.deepStrictEqual(yield* checksums(target), yield* checksums(source), label())
  yield* Fiber.interrupt(supervisor)
  const current = yield* Ref.get(running)
  yield* current.kill("SIGINT")
  assert.strictEqual((yield* current.ended).code, 0, label())
  return [...said, current.stderr()].filter((text) => text.includes("the first copy goes on: ")).length
})

/**
 * Whoever writes the row of this id waits until it is let go on. A row that somebody has not committed would do as well, but as
 * long as that transaction runs nobody at this server makes a slot.
 */
const holdAt = Effect.fnUntraced(function* (target: Workspace, table: string, id: number) {
  yield* target.sql(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';
    CREATE TRIGGER hold BEFORE INSERT ON ${table} FOR EACH ROW WHEN (NEW.id = ${id}) EXECUTE FUNCTION hold();
    ALTER TABLE ${table} ENABLE ALWAYS TRIGGER hold`)
  const holder = yield* target.session
  yield* holder.query("SELECT pg_advisory_lock(7)")
  return holder.query("SELECT pg_advisory_unlock(7)")
})

/** Begins a copy, and stops it in the middle of the table. */
const copyPart = Effect.fnUntraced(function* (target: Workspace, options: Copy.Options) {
  const letGo = yield* holdAt(target, "bulk", 9000)
  const copying = yield* startCopy(options)
  const copied = Effect.map(target.sql("SELECT count(*)::int AS n FROM bulk"), ([row]) => Number(row?.n))
  yield* copying.during(
    eventually(
      Effect.map(copied, (rows) => rows > 100),
      { what: "rows are copied" }
    )
  )
  yield* copying.stop
  yield* letGo
}, Effect.scoped)

describe("P9: a copy into another database that is killed", () => {
  fault(
    "P9",
    `the process, or its sessions on either side, at random moments: both are equal in the end, ${rounds} rounds from COPY_SEED=${firstSeed}`,
    (server) =>
      Effect.gen(function* () {
        let resumed = 0
        for (let index = 0; index < rounds; index++) {
          resumed += yield* Effect.scoped(round(server, firstSeed + index * 1000))
        }
        // Some kills must hit the first copy, or that it goes on would be tried by none.
        if (rounds >= 10) assert.isAbove(resumed, rounds / 5)
      }),
    { ...once, timeout: 60_000 + rounds * 40_000 }
  )

  fault("P9", "in the middle of the first copy, and unique values pass to other rows before it goes on", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: bulk })
      const target = yield* makeWorkspace(server, { sql: bulk })
      yield* source.sql(fillBulk)
      const options = copyOptions(source, target, { piecePages: 8, connections: 1 })
      yield* copyPart(target, options)
      // Each of these rows takes the code of the one before it, and the one before it is still there with that code.
      yield* source.sql(`UPDATE bulk SET code = -code WHERE id <= 60; UPDATE bulk SET code = -code - 1 WHERE id BETWEEN 2 AND 60;
        DELETE FROM bulk WHERE id = 70; INSERT INTO bulk VALUES (200000, 70, 'took its code')`)
      const second = yield* startCopy(options)
      yield* second.during(caughtUp(source, target))
      assert.deepStrictEqual(yield* checksums(target), yield* checksums(source))
      assert.isBelow(second.totals.rows, 12_000, "what was copied did not come again")
    })
  )

  fault("P9", "in the middle of the first copy, and rows are renumbered before it goes on", (server) =>
    Effect.gen(function* () {
      const numbered = `CREATE TABLE bulk (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY UNIQUE, body text); ${markTable}`
      const source = yield* makeWorkspace(server, { sql: numbered })
      const target = yield* makeWorkspace(server, { sql: numbered })
      yield* source.sql(
        "INSERT INTO bulk (id, body) SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 12000) n"
      )
      const options = copyOptions(source, target, { piecePages: 8, connections: 1 })
      yield* copyPart(target, options)
      yield* source.sql("UPDATE bulk SET n = DEFAULT WHERE id <= 60")
      const second = yield* startCopy(options)
      yield* second.during(caughtUp(source, target))
      assert.deepStrictEqual(yield* checksums(target), yield* checksums(source))
      assert.isBelow(second.totals.rows, 12_000, "what was copied did not come again")
    })
  )

  fault("P9", "in the middle of the first copy of what publishes no deletes: rows that may stay are told", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, {
        sql: bulk,
        publication: "FOR ALL TABLES WITH (publish = 'insert')"
      })
      const target = yield* makeWorkspace(server, { sql: bulk })
      yield* source.sql(fillBulk)
      const options = copyOptions(source, target, { piecePages: 8, connections: 1 })
      yield* copyPart(target, options)
      const args = ["copy", "--from", source.url(), "--publication", source.publication, "--slot", source.slot]
      const second = yield* startReplicant(args, { TARGET_URL: target.url() })
      yield* caughtUp(source, target)
      yield* second.kill("SIGTERM")
      const { code, stderr } = yield* second.ended
      assert.strictEqual(code, 0, stderr)
      assert.include(
        stderr,
        `publication ${source.publication} publishes no deletes: rows that an earlier run copied stay`
      )
    })
  )

  fault(
    "P9",
    "a session at the target that is lost in the middle of a large transaction: it is applied once, and its state tells of it",
    (server) =>
      Effect.gen(function* () {
        const sql = `CREATE TABLE big (id int, note text); ALTER TABLE big REPLICA IDENTITY FULL; ${markTable}`
        const source = yield* makeWorkspace(server, { sql })
        const target = yield* makeWorkspace(server, { sql })
        const copying = yield* startCopy(copyOptions(source, target))
        yield* copying.during(caughtUp(source, target))
        const letGo = yield* holdAt(target, "big", 30_000)
        yield* source.sql("INSERT INTO big SELECT n, repeat('x', 100) FROM generate_series(1, 60000) n")
        yield* copying.during(
          eventually(
            Effect.map(
              target.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = '${target.database}' AND application_name = 'replicant' AND wait_event = 'advisory'`),
              (rows) => rows.length > 0
            ),
            { what: "the transaction was under way" }
          )
        )
        yield* letGo
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(
          yield* target.sql("SELECT count(*)::int AS n, count(DISTINCT id)::int AS ids FROM big"),
          [{ n: 60000, ids: 60000 }]
        )
        const { states } = copying
        // Its slot may be in use for a moment still.
        const told = states.map(({ _tag }) => _tag).filter((tag) => tag !== "WaitingForSlot")
        assert.deepStrictEqual(
          told.filter((tag, index) => tag !== told[index - 1]),
          ["Idle", "Connecting", "Copying", "Streaming", "Reconnecting", "Connecting", "Streaming"]
        )
        const lost = states.find((state) => state._tag === "Reconnecting")
        // By the server's own word where a statement was under way, and else by the end of the connection.
        assert.include(["TargetFailed", "ConnectionError"], lost?.cause._tag)
      })
  )

  fault(
    "V7",
    "a source that fails over: the copy goes on, in the same process and in those after it, with its position's timeline",
    (server) =>
      Effect.gen(function* () {
        const from = yield* trustingServer()
        const source = yield* makeWorkspace(from, { sql: `CREATE TABLE t (id int PRIMARY KEY); ${markTable}` })
        const target = yield* makeWorkspace(server, { sql: `CREATE TABLE t (id int PRIMARY KEY); ${markTable}` })
        // Who streams from a standby goes on through its promotion, and is told nothing of a new timeline: so nobody is let in
        // before that.
        const proxy = yield* FaultProxy.make(from)
        const { host, port } = proxy
        const options = copyOptions(source, target, { from: { url: Redacted.make(source.url()), host, port } })
        const write = (id: number) => source.sql(`INSERT INTO t VALUES (${id})`)
        const isOn = (timeline: number) =>
          eventually(
            Effect.map(
              target.sql("SELECT timeline FROM replicant.copy_position"),
              ([row]) => row?.timeline === timeline
            ),
            { what: `the position is on timeline ${timeline}` }
          )
        const first = yield* startCopy(options)
        yield* write(1)
        yield* first.during(caughtUp(source, target))
        yield* first.during(isOn(1))
        yield* proxy.refuse
        yield* proxy.cut("rst")
        yield* first.during(failOver(from))
        yield* proxy.pass
        yield* write(2)
        yield* first.during(caughtUp(source, target))
        yield* first.during(isOn(2))
        yield* first.stop
        yield* failOver(from)
        for (const id of [3, 4]) {
          yield* write(id)
          const next = yield* startCopy(options)
          yield* next.during(caughtUp(source, target))
          yield* next.during(isOn(3))
          yield* next.stop
        }
        const ids = "SELECT id FROM t ORDER BY id"
        assert.deepStrictEqual(yield* target.sql(ids), yield* source.sql(ids))
      }),
    { timeout: 90_000 }
  )
})
