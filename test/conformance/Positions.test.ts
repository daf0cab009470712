/**
 * Slots and the walsender, first part: what a position means when it is acknowledged, when a stream starts at it, and
 * in the header of a frame. First what the server does, by hand; then that Replicant lives with it.
 */
import { assert, describe } from "@effect/vitest"
import { type Change, Lsn, nextLsn } from "@replicant/core"
import { Effect } from "effect"
import { scenario } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { follow, insertedRows, walSender } from "../support/Follow.ts"
import {
  commits,
  connectRaw,
  insertedTexts,
  isA,
  pluginMessages,
  type RawStream,
  startCommand,
  startRaw
} from "../support/RawWalSender.ts"
import { makeSlot } from "../support/Slot.ts"
import { type Said, tapWalSender, type WalSenderTap } from "../support/WalSenderTap.ts"
import { makeWorkspace, type Workspace, type WorkspaceServer } from "../support/Workspace.ts"

const lsnOf = (text: unknown): Lsn.Lsn => Lsn.fromString(String(text))!

const ids = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id)

/** A table, and a slot that knows of it. */
const withSlot = Effect.fnUntraced(function* (server: WorkspaceServer, sql = "CREATE TABLE t (id int PRIMARY KEY)") {
  const workspace = yield* makeWorkspace(server, { sql })
  yield* makeSlot(workspace)
  return workspace
})

const confirmed = (workspace: Workspace) => Effect.map(workspace.findSlot(), (slot) => lsnOf(slot?.confirmed_flush_lsn))

const confirms = (workspace: Workspace, lsn: Lsn.Lsn) =>
  eventually(
    Effect.map(confirmed(workspace), (found) => found === lsn),
    { what: `the slot has confirmed ${Lsn.format(lsn)}` }
  )

/** One raw session: starts at a position, waits until the walsender has sent all there is, and leaves the slot free. */
const listen = <A, E>(
  workspace: Workspace,
  use: (raw: RawStream) => Effect.Effect<A, E>,
  { from = "0/0" }: { readonly from?: string } = {}
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connectRaw(workspace.url())
      const raw = yield* startRaw(connection, startCommand(workspace.slot, workspace.publication, from))
      yield* raw.hears("its acceptance", isA("CopyBothResponse"))
      yield* raw.sentThrough(lsnOf(yield* workspace.currentWalLsn))
      return yield* use(raw)
    })
  ).pipe(Effect.tap(eventually(Effect.map(workspace.findSlot(), (slot) => slot?.active === false))))

const heardIds = (raw: RawStream) => Effect.sync(() => insertedTexts(raw.heard).map(Number))

describe("resume", () => {
  scenario("resume", "goes on behind the last transaction whose end was acknowledged", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const [, second, third] = yield* listen(workspace, (raw) => Effect.sync(() => commits(raw.heard)))
      const rounds: ReadonlyArray<readonly [sees: ReadonlyArray<number>, acknowledges: Lsn.Lsn | undefined]> = [
        [[1, 2, 3], undefined],
        [[1, 2, 3], second!.commitLsn],
        [[2, 3], second!.endLsn],
        [[3], third!.endLsn],
        [[], undefined]
      ]
      for (const [sees, acknowledges] of rounds) {
        yield* listen(workspace, (raw) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* heardIds(raw), [...sees])
            const letters = pluginMessages(raw.heard).map(({ letter }) => letter)
            // A relation comes before its first row, and may come again: the server's cache is not ours to foresee.
            const first = sees.length === 0 ? [] : ["B", "R", "I"]
            assert.deepStrictEqual(letters.slice(0, 3), first)
            const whole = sees.flatMap(() => ["B", "I", "C"])
            const frames = letters.filter((letter) => letter !== "R")
            assert.deepStrictEqual(frames, whole, "redelivery is of whole transactions")
            if (acknowledges === undefined) return
            yield* raw.acknowledge(acknowledges)
            yield* confirms(workspace, acknowledges)
          })
        )
      }
    })
  )

  scenario("resume", "loses a commit that begins at an acknowledged end, once one byte more is said", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      const sessions = yield* Effect.all(Array.from({ length: 12 }, () => workspace.session))
      for (let round = 1; ; round++) {
        assert.isAtMost(round, 30, "of commits at the same time, two lay side by side")
        for (const [index, session] of sessions.entries()) {
          yield* session.query(`BEGIN; INSERT INTO t VALUES (${round * 100 + index})`)
        }
        yield* Effect.all(
          sessions.map((session) => session.query("COMMIT")),
          { concurrency: "unbounded" }
        )
        const { at, heard, next } = yield* listen(workspace, (raw) =>
          Effect.gen(function* () {
            const heard = yield* heardIds(raw)
            const all = commits(raw.heard)
            assert.lengthOf(heard, sessions.length)
            const at = all.findIndex(({ endLsn }, index) => endLsn === all[index + 1]?.commitLsn)
            const next = at < 0 ? all.at(-1)!.endLsn : ((all[at]!.endLsn + 1n) as Lsn.Lsn)
            yield* raw.acknowledge(next)
            yield* confirms(workspace, next)
            return { at, heard, next }
          })
        )
        const after = yield* listen(workspace, heardIds)
        if (at < 0) assert.deepStrictEqual(after, [])
        else {
          assert.deepStrictEqual(after, heard.slice(at + 2), `the commit before ${Lsn.format(next)} is never seen`)
          return
        }
      }
    })
  )

  scenario("resume", "comes by the end of what a handler finished, exactly", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const before = yield* confirmed(workspace)
      /** Sees all there is, acknowledges the commit of the row that it is told, and leaves. */
      const round = Effect.fnUntraced(function* (sees: ReadonlyArray<number>, acknowledges: number) {
        let last: unknown
        const stream = yield* follow(workspace, {
          handler: (change) => {
            if (change._tag === "Insert") last = change.row.id
            return Effect.succeed(last === acknowledges ? nextLsn(change) : undefined)
          }
        })
        yield* stream.saw("Commit", sees.length)
        yield* stream.stop
        assert.deepStrictEqual(
          stream.changes.map((change) => change._tag),
          sees.flatMap(() => ["Begin", "Insert", "Commit"])
        )
        assert.deepStrictEqual(ids(stream.changes), [...sees])
        return stream.changes.flatMap((change) => (change._tag === "Commit" ? [change] : []))
      })
      const [first, second] = yield* round([1, 2, 3], 0)
      const unmoved = yield* confirmed(workspace)
      assert.isTrue(unmoved >= before && unmoved <= first!.commitLsn)
      yield* round([1, 2, 3], 2)
      assert.strictEqual(yield* confirmed(workspace), second!.endLsn)
      const [third] = yield* round([3], 3)
      assert.isTrue((yield* confirmed(workspace)) >= third!.endLsn)
      yield* workspace.sql("INSERT INTO t VALUES (4)")
      yield* round([4], 4)
    })
  )
})

describe("start positions", () => {
  scenario("start-position", "ahead of the slot skip what waits there, without a word", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      for (const id of [1, 2]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const [first] = yield* listen(workspace, (raw) => Effect.sync(() => commits(raw.heard)))
      const starts: ReadonlyArray<readonly [from: string, sees: ReadonlyArray<number>]> = [
        ["0/0", [1, 2]],
        ["0/1", [1, 2]],
        [Lsn.format(first!.endLsn), [2]],
        ["FFFF/0", []]
      ]
      for (const [from, sees] of starts) {
        yield* listen(
          workspace,
          (raw) =>
            Effect.sync(() => {
              assert.deepStrictEqual(insertedTexts(raw.heard).map(Number), [...sees], from)
              const others = raw.heard.filter((said) => !isA("XLogData")(said) && !isA("PrimaryKeepAlive")(said))
              assert.deepStrictEqual(others, [{ _tag: "CopyBothResponse" }], "neither a notice nor an error")
            }),
          { from }
        )
      }
      yield* listen(
        workspace,
        (raw) =>
          Effect.gen(function* () {
            yield* workspace.sql("INSERT INTO t VALUES (3)")
            yield* raw.sentThrough(lsnOf(yield* workspace.currentWalLsn))
            assert.deepStrictEqual(pluginMessages(raw.heard), [], "nor anything that is written meanwhile")
          }),
        { from: "FFFF/0" }
      )
      assert.deepStrictEqual(yield* listen(workspace, heardIds), [1, 2, 3])
    })
  )

  scenario("start-position", "are 0/0 at first, and never beyond what was finished", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const tap = yield* tapWalSender(walSender(workspace))
      let count = 0
      const stream = yield* follow(workspace, {
        layer: tap.layer,
        handler: (change) => Effect.succeed(change._tag === "Commit" && ++count <= 2 ? nextLsn(change) : undefined)
      })
      yield* stream.saw("Commit", 3)
      const [, second] = stream.changes.filter((change) => change._tag === "Commit")
      yield* confirms(workspace, second!.endLsn)
      yield* workspace.sql(
        `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
      )
      yield* stream.saw("Commit", 4)
      assert.deepStrictEqual(ids(stream.changes), [1, 2, 3, 3])
      const positions = tap.starts().map((command) => / LOGICAL (\S+) /.exec(command)?.[1])
      assert.strictEqual(positions[0], "0/0")
      for (const position of positions.slice(1)) assert.isTrue(lsnOf(position) <= second!.endLsn, position)
    })
  )
})

/** What must hold of every status update, given what was heard before it; what is flushed also across connections. */
const assertHonest = (tap: WalSenderTap): void => {
  let [heard, heardHere, flushed, written] = [Lsn.zero, Lsn.zero, Lsn.zero, Lsn.zero]
  for (const said of tap.said) {
    switch (said._tag) {
      case "Start":
        heardHere = written = Lsn.zero
        break
      case "XLogData":
      case "PrimaryKeepAlive":
        heard = Lsn.max(heard, said.walEnd)
        heardHere = Lsn.max(heardHere, said.walEnd)
        break
      case "StandbyStatusUpdate":
        assert.isTrue(said.flushed <= heard, "nothing is flushed that was not received")
        assert.isTrue(said.flushed >= flushed, "what is flushed stays so")
        assert.isTrue(said.written <= heardHere && said.written >= written, "what is received is told as it is")
        flushed = said.flushed
        written = said.written
    }
  }
}

describe("limits of an acknowledgement", () => {
  scenario("ack-limits", "are none: older positions are ignored, and the future is believed", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      yield* listen(workspace, (raw) =>
        Effect.gen(function* () {
          const [first, second] = commits(raw.heard)
          yield* raw.acknowledge(second!.endLsn)
          yield* confirms(workspace, second!.endLsn)
          for (const older of [first!.endLsn, Lsn.zero]) {
            const answered = raw.heard.length
            yield* raw.acknowledge(older, { ping: true })
            yield* eventually(Effect.sync(() => raw.heard.slice(answered).some(isA("PrimaryKeepAlive"))))
            assert.strictEqual(yield* confirmed(workspace), second!.endLsn)
          }
        })
      )
      const future = lsnOf("FFFF/0")
      yield* listen(workspace, (raw) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* heardIds(raw), [3])
          yield* raw.acknowledge(future)
          yield* confirms(workspace, future)
        })
      )
      yield* workspace.sql("INSERT INTO t VALUES (4)")
      yield* listen(workspace, (raw) => Effect.sync(() => assert.deepStrictEqual(pluginMessages(raw.heard), [])))
      const misled = yield* follow(workspace)
      assert.strictEqual((yield* misled.failure)._tag, "DecodeError", "we do not take that position for a place in WAL")
    })
  )

  scenario("ack-limits", "are kept by us: nothing is flushed that was not received, and never less", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(server, "CREATE TABLE t (id int PRIMARY KEY); CREATE UNLOGGED TABLE u (id int)")
      const tap = yield* tapWalSender(walSender(workspace))
      const held: Array<Change> = []
      const stream = yield* follow(workspace, {
        layer: tap.layer,
        options: { timing: { statusInterval: "20 millis" } },
        // Commits 1, 3, 5, … are not acknowledged by themselves, but with the next one.
        handler: (change) => {
          if (change._tag === "Commit") held.push(change)
          return Effect.succeed(held.length % 2 === 0 ? nextLsn(change) : undefined)
        }
      })
      for (let id = 1; id <= 6; id++) {
        yield* workspace.sql(`INSERT INTO t VALUES (${id}); CREATE TABLE later_${id} ()`)
        yield* stream.saw("Commit", id)
      }
      yield* workspace.sql(
        `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
      )
      yield* workspace.sql("INSERT INTO t VALUES (7)")
      yield* stream.saw("Commit", 7)
      const end = lsnOf(yield* workspace.currentWalLsn)
      yield* workspace.sql("INSERT INTO t VALUES (8)")
      yield* eventually(Effect.map(confirmed(workspace), (lsn) => lsn >= end))
      yield* stream.stop
      assertHonest(tap)
      assert.isTrue(tap.said.some((said) => said._tag === "StandbyStatusUpdate" && said.flushed >= end))
    })
  )
})

describe("frame headers", () => {
  scenario("wal-position-zero", "bear 0/0 for relations and types, and we never go back to it", (server) =>
    Effect.gen(function* () {
      const workspace = yield* withSlot(
        server,
        "CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE t (id int PRIMARY KEY, m mood); CREATE TABLE u (LIKE t)"
      )
      for (const name of ["t", "u"]) yield* workspace.sql(`INSERT INTO ${name} VALUES (1, 'fine')`)
      yield* listen(workspace, (raw) =>
        Effect.sync(() => {
          const messages = pluginMessages(raw.heard)
          assert.deepStrictEqual(
            messages.map(({ letter }) => letter),
            ["B", "Y", "R", "I", "C", "B", "Y", "R", "I", "C"]
          )
          for (const { letter, walEnd, walStart } of messages) {
            assert.strictEqual(walEnd, walStart)
            assert.strictEqual(walStart === Lsn.zero, letter === "R" || letter === "Y", letter)
          }
        })
      )
      // One message at a time, and a status update after each description, so that its position would be told.
      const isZero = (said: Said) => said._tag === "XLogData" && said.walStart === Lsn.zero
      const tap = yield* tapWalSender(walSender(workspace), { holdAfter: isZero })
      const stream = yield* follow(workspace, {
        layer: tap.layer,
        options: { timing: { statusInterval: "20 millis" } }
      })
      yield* workspace.sql("ALTER TABLE t ADD n int; INSERT INTO t VALUES (2, 'fine', 2)")
      yield* stream.saw("Commit", 3)
      yield* stream.stop
      const held = tap.said.filter((_, index) => index > 0 && isZero(tap.said[index - 1]!))
      assert.isAtLeast(held.length, 5)
      for (const said of held) assert.strictEqual(said._tag, "StandbyStatusUpdate")
      assertHonest(tap)
    })
  )
})
