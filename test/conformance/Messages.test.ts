/** What `pg_logical_emit_message` writes: in its transaction's place, or at once and outside of any. */
import { assert, describe } from "@effect/vitest"
import { Lsn, Pgoutput } from "@replicant/core"
import { Effect } from "effect"
import { expected, record, scenario, transcript, withoutEmpty } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { follow } from "../support/Follow.ts"
import { connectRaw, isA, pluginMessages, startCommand, startRaw } from "../support/RawWalSender.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (a int PRIMARY KEY)"

describe("Messages", () => {
  scenario("messages", "stand in their transaction's place, or alone, before it and whatever becomes of it", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: table })
      const other = yield* makeWorkspace(server)
      const emit = (transactional: boolean, prefix: string, content: string) =>
        `SELECT pg_logical_emit_message(${transactional}, '${prefix}', '${content}')`
      yield* recorder.run(
        emit(true, "alone", "1"),
        ...["BEGIN", "INSERT INTO t VALUES (1)", emit(true, "within", "2"), emit(false, "before", "3")],
        ...["INSERT INTO t VALUES (2)", emit(true, "last", "4"), "COMMIT"],
        ...["BEGIN", "INSERT INTO t VALUES (3)", emit(true, "lost", "5"), emit(false, "kept", "6"), "ROLLBACK"],
        ...["BEGIN", emit(true, "lost", "7"), "ROLLBACK"],
        ...["BEGIN", "INSERT INTO t VALUES (4)", "SAVEPOINT s", emit(true, "lost", "8"), emit(false, "kept", "9")],
        ...["ROLLBACK TO s", emit(true, "after", "10"), "SAVEPOINT r", emit(true, "released", "11"), "RELEASE r"],
        "COMMIT"
      )
      for (const transactional of [true, false]) yield* other.sql(emit(transactional, "elsewhere", "12"))
      yield* recorder.run(
        emit(true, "", "no prefix"),
        emit(false, "", ""),
        "SELECT pg_logical_emit_message(true, 'binary', '\\x00ff0a00'::bytea)",
        "SELECT pg_logical_emit_message(false, 'binary', '\\xff00'::bytea)",
        emit(true, "naïve", "☕")
      )
      const units = [
        ["M tx alone 1"],
        "M - before 3",
        ["I t{a=1}", "M tx within 2", "I t{a=2}", "M tx last 4"],
        "M - kept 6",
        "M - kept 9",
        ["I t{a=4}", "M tx after 10", "M tx released 11"],
        ['M tx "" "no prefix"'],
        'M - "" ""',
        ["M tx binary \\x00ff0a00"],
        "M - binary \\xff00",
        ["M tx naïve ☕"]
      ]
      yield* recorder.expect(...units)
      const raw = (yield* recorder.raw).filter((line) => !line.startsWith("R "))
      assert.deepStrictEqual(raw, expected(units))
    })
  )

  scenario("messages", "that are not transactional come at once, from a transaction that is still open", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace)
      const session = yield* workspace.session
      yield* session.query("BEGIN; INSERT INTO t VALUES (1)")
      const [row] = yield* session.query("SELECT pg_logical_emit_message(false, 'now', 'here') AS lsn")
      // Nothing is sent before it is flushed, which the WAL writer may put off for ten seconds: any commit does it.
      yield* workspace.sql("SELECT txid_current()")
      yield* stream.saw("Message", 1)
      assert.deepStrictEqual(withoutEmpty(server, transcript(stream.changes)), ["M - now here"])
      const message = stream.changes.find(({ _tag }) => _tag === "Message")
      assert(message?._tag === "Message")
      assert.isUndefined(message.begin)
      assert.strictEqual(message.lsn, Lsn.fromString(String(row?.lsn)), "the place that the function returned")
      yield* session.query("COMMIT")
      yield* stream.saw("Insert", 1)
      yield* eventually(Effect.sync(() => stream.changes.at(-1)?._tag === "Commit"))
      const all = withoutEmpty(server, transcript(stream.changes))
      assert.deepStrictEqual(all, ["M - now here", "B", "I t{a=1}", "C"])
    })
  )

  scenario("messages", "are not sent unless asked for, which Replicant does unless told not to", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const plugin = Pgoutput.make({ publications: [workspace.publication], messages: false })
      const rawSlot = `${workspace.slot}_raw`
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${rawSlot}', 'pgoutput')`)
      const deaf = yield* follow(workspace, { options: { plugin } })
      const hearing = yield* follow(workspace, { options: { slot: `${workspace.slot}_hearing` } })
      yield* workspace.sql("SELECT pg_logical_emit_message(false, 'p', 'outside')")
      yield* workspace.sql("BEGIN; INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'p', 'in'); COMMIT")
      for (const stream of [deaf, hearing]) yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(transcript(deaf.changes), expected(["I t{a=1}"]))
      assert.deepStrictEqual(transcript(hearing.changes), expected(["M - p outside", ["I t{a=1}", "M tx p in"]]))
      const raw = yield* startRaw(yield* connectRaw(workspace.url()), startCommand(rawSlot, workspace.publication))
      yield* raw.hears("its acceptance", isA("CopyBothResponse"))
      const letters = () => pluginMessages(raw.heard).map(({ letter }) => letter)
      yield* eventually(Effect.sync(() => letters().includes("C")))
      assert.deepStrictEqual(letters(), ["B", "R", "I", "C"])
    })
  )
})
