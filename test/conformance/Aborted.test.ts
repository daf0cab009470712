/** What a server says of transactions that were rolled back, outside of any block: see docs/messages.md. */
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import {
  Handler,
  type InProgress,
  Lsn,
  nextLsn,
  Pgoutput,
  type Transaction,
  TransactionSpill,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Layer } from "effect"
import { expected, record, scenario, transcript } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { follow, logicalOptions, walSender } from "../support/Follow.ts"
import { PgoutputPrinter } from "../support/PgoutputText.ts"
import type { Server } from "../support/Servers.ts"
import { makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const streamsEarly = `
  DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database());
  END $$;`

const lsn = (text: string): Lsn.Lsn => Lsn.fromString(text)!

const rows = (from: number, to: number) =>
  `INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(${from}, ${to}) i`

/** Everything that is asked of pgoutput here, with the version of the protocol that it takes. */
const asked: ReadonlyArray<{ readonly protocol: string; readonly plugin: Omit<Pgoutput.Options, "publications"> }> = [
  { protocol: "1", plugin: {} },
  { protocol: "2", plugin: { streaming: "on" } },
  { protocol: "3", plugin: { twoPhase: true } },
  { protocol: "3, streaming", plugin: { twoPhase: true, streaming: "on" } },
  { protocol: "4", plugin: { streaming: "parallel" } },
  { protocol: "4, two-phase", plugin: { twoPhase: true, streaming: "parallel" } }
]

const spill = TransactionSpill.layer().pipe(Layer.provide(NodeFileSystem.layer))
const layerOf = (workspace: Workspace) => Layer.merge(walSender(workspace), spill)

const optionsOf = (workspace: Workspace, plugin: Omit<Pgoutput.Options, "publications">) => ({
  ...logicalOptions(workspace),
  plugin: Pgoutput.make({ publications: [workspace.publication], ...plugin })
})

/**
 * A slot whose consumer is behind: a row, a large transaction with a released savepoint that was rolled back, a row. Also
 * where all of it ends.
 */
const makeBehind = Effect.fnUntraced(function* (server: Server) {
  const workspace = yield* makeWorkspace(server, { sql: `${streamsEarly} CREATE TABLE t (i int PRIMARY KEY, p text)` })
  yield* makeSlot(workspace)
  yield* workspace.sql("INSERT INTO t VALUES (1, 'before')")
  const session = yield* workspace.session
  yield* session.query(`BEGIN; SAVEPOINT a; ${rows(10, 14)}; RELEASE a; ${rows(100, 3000)}`)
  yield* session.query("ROLLBACK")
  yield* workspace.sql("INSERT INTO t VALUES (2, 'after')")
  return { workspace, end: lsn(yield* workspace.currentWalLsn) }
})

/** Waits until the slot is confirmed that far: it stands in nobody's way. */
const confirmed = (workspace: Workspace, end: Lsn.Lsn) =>
  eventually(
    Effect.map(workspace.findSlot(), (slot) => lsn(slot?.confirmed_flush_lsn ?? "0/0") >= end),
    { what: "the slot is confirmed beyond what was rolled back" }
  )

const bothRows = expected(["I t{i=1,p=before}", "I t{i=2,p=after}"])

describe("Transactions that were rolled back", () => {
  for (const [protocol, more] of [
    ["1", ""],
    ["2", ", 'streaming', 'on'"],
    ["3", ", 'two_phase', 'true'"],
    ["4", ", 'streaming', 'parallel'"]
  ] as const) {
    scenario(
      "aborted-truncated",
      `the server says of it that its savepoint is undone, outside of any transaction (protocol ${protocol})`,
      (server) =>
        Effect.gen(function* () {
          const { workspace } = yield* makeBehind(server)
          const said = yield* workspace.sql(
            `SELECT data FROM pg_logical_slot_peek_binary_changes('${workspace.slot}', NULL, NULL,
               'proto_version', '${protocol}', 'publication_names', '${workspace.publication}'${more})`
          )
          const printer = new PgoutputPrinter()
          const lines = said
            .map((row) => printer.print(row.data as Uint8Array))
            .filter((line) => !line.startsWith("R "))
          const abort = protocol === "4" ? "A subtransaction, with its place" : "A subtransaction"
          const [before, after] = [bothRows.slice(0, 3), bothRows.slice(3)]
          assert.deepStrictEqual(lines, [...before, abort, ...after])
        }),
      { since: 18 }
    )
  }

  for (const { plugin, protocol } of asked) {
    scenario(
      "aborted-truncated",
      `the rows around it come as changes, and the slot moves on (protocol ${protocol})`,
      (server) =>
        Effect.gen(function* () {
          const { end, workspace } = yield* makeBehind(server)
          const stream = yield* follow(workspace, {
            options: optionsOf(workspace, plugin),
            layer: layerOf(workspace)
          })
          yield* stream.saw("Commit", 2)
          yield* confirmed(workspace, end)
          assert.deepStrictEqual(transcript(stream.changes), bothRows)
        }),
      { since: 18 }
    )

    // Whole transactions are not to be had of what is only prepared.
    if (plugin.twoPhase !== true) {
      scenario(
        "aborted-truncated",
        `the rows around it come as transactions, and the slot moves on (protocol ${protocol})`,
        (server) =>
          Effect.gen(function* () {
            const { end, workspace } = yield* makeBehind(server)
            const seen: Array<Transaction> = []
            const fiber = yield* withLogicalStream(
              optionsOf(workspace, plugin),
              Handler.transactions((transaction) => {
                seen.push(transaction)
                return Effect.succeed(transaction.nextLsn)
              })
            ).pipe(Effect.provide(layerOf(workspace)), Effect.forkScoped)
            yield* Effect.raceFirst(confirmed(workspace, end), Fiber.join(fiber))
            assert.deepStrictEqual(
              seen.map(({ changes }) => transcript(changes)),
              [["I t{i=1,p=before}"], ["I t{i=2,p=after}"]]
            )
          }),
        { since: 18 }
      )
    }

    if (plugin.streaming !== undefined) {
      scenario(
        "aborted-truncated",
        `the rows around it come to who is shown transactions in progress, and nothing of it (protocol ${protocol})`,
        (server) =>
          Effect.gen(function* () {
            const { end, workspace } = yield* makeBehind(server)
            const seen: Array<InProgress.ChangeInProgress> = []
            const fiber = yield* withLogicalStream(
              { ...optionsOf(workspace, plugin), inProgress: "deliver" },
              (change) => {
                seen.push(change)
                return Effect.succeed(nextLsn(change))
              }
            ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
            yield* Effect.raceFirst(confirmed(workspace, end), Fiber.join(fiber))
            assert.deepStrictEqual(transcript(seen as never), bothRows)
          }),
        { since: 18 }
      )
    }
  }

  scenario(
    "two-phase-on",
    "goes on where a rollback is kept back by its origin, and its blocks are undone instead",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: `${streamsEarly} CREATE TABLE t (i int PRIMARY KEY, p text)`,
          plugin: { twoPhase: true, streaming: "on", origin: "none" },
          layer: spill
        })
        const gid = recorder.slot
        yield* recorder.run(`BEGIN; SAVEPOINT a; ${rows(1, 2000)}; RELEASE a; ${rows(2001, 3000)}`)
        yield* eventually(
          Effect.map(
            recorder.sql(
              `SELECT FROM pg_stat_replication_slots WHERE slot_name = '${recorder.slot}' AND stream_txns > 0`
            ),
            (found) => found.length > 0
          ),
          { what: "the server streamed it in progress" }
        )
        yield* recorder.run(`PREPARE TRANSACTION '${gid}'`)
        // A server that knows of the rollback by then sends less.
        yield* recorder.stream.saw("Prepare", 1)
        const elsewhere = yield* recorder.session
        yield* elsewhere.query(`SELECT pg_replication_origin_create('${gid}')`)
        yield* Effect.addFinalizer(() =>
          Effect.ignore(
            elsewhere
              .query("SELECT pg_replication_origin_session_reset()")
              .pipe(Effect.andThen(elsewhere.query(`SELECT pg_replication_origin_drop('${gid}')`)))
          )
        )
        yield* elsewhere.query(`SELECT pg_replication_origin_session_setup('${gid}')`)
        yield* elsewhere.query(`ROLLBACK PREPARED '${gid}'`)
        yield* recorder.run("INSERT INTO t VALUES (0, 'after')")
        const lines = transcript(yield* recorder.take)
        assert.deepStrictEqual(
          lines.filter((line) => !line.startsWith("I t{i=") || line.startsWith("I t{i=0,")),
          ["B", transcript([{ _tag: "Prepare", gid } as never])[0]!, "B", "I t{i=0,p=after}", "C"]
        )
        assert.lengthOf(lines, 3000 + 5)
      }),
    { since: 16 }
  )

  scenario(
    "two-phase-on",
    "after a reconnect blocks may come of what was prepared before, and what became of it is the end of them",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `${streamsEarly} CREATE TABLE t (i int PRIMARY KEY, p text)`
        })
        const options = optionsOf(workspace, { twoPhase: true, streaming: "on" })
        const stream = yield* follow(workspace, { options, layer: layerOf(workspace) })
        const session = yield* workspace.session
        yield* session.query(`BEGIN; ${rows(1, 140)}; PREPARE TRANSACTION '${workspace.slot}'`)
        yield* stream.saw("Prepare", 1)
        yield* confirmed(workspace, lsn(yield* workspace.currentWalLsn))
        yield* stream.stop
        // Less than what is prepared, and with it too much for the server's memory.
        const other = yield* workspace.session
        yield* other.query(`BEGIN; ${rows(1001, 1130)}`)
        const seen: Array<InProgress.ChangeInProgress> = []
        const fiber = yield* withLogicalStream({ ...options, inProgress: "deliver" }, (change) => {
          seen.push(change)
          return Effect.succeed(nextLsn(change))
        }).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* Effect.raceFirst(
          eventually(
            Effect.sync(() => seen.some(({ _tag }) => _tag === "StreamStop")),
            { what: "a block" }
          ),
          Fiber.join(fiber)
        )
        yield* session.query(`COMMIT PREPARED '${workspace.slot}'`)
        yield* other.query("ROLLBACK")
        yield* session.query("INSERT INTO t VALUES (0, 'after')")
        yield* Effect.raceFirst(confirmed(workspace, lsn(yield* workspace.currentWalLsn)), Fiber.join(fiber))
        const told = seen.flatMap((change) => (change._tag === "Streamed" ? [] : [change]))
        const xids = told.flatMap((change) => ("xid" in change && change._tag !== "Begin" ? [change.xid] : []))
        assert.deepStrictEqual(
          told.map(({ _tag }) => _tag),
          ["StreamStart", "StreamStop", "CommitPrepared", "Begin", "Insert", "Commit"]
        )
        assert.lengthOf([...new Set(xids)], 1, "the blocks are of what was prepared")
      }),
    { since: 15 }
  )

  for (const streaming of [undefined, "on"] as const) {
    scenario(
      "two-phase-off",
      `refuses a slot that tells of prepared transactions all the same, and says why (streaming ${streaming ?? "off"})`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (i int PRIMARY KEY)" })
          const { slot } = workspace
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput', false, true)`)
          const stream = yield* follow(workspace, {
            options: optionsOf(workspace, { streaming }),
            layer: layerOf(workspace)
          })
          const session = yield* workspace.session
          yield* session.query("BEGIN")
          yield* session.query("INSERT INTO t VALUES (1)")
          yield* session.query(`PREPARE TRANSACTION '${slot}'`)
          const error = yield* stream.failure
          yield* session.query(`ROLLBACK PREPARED '${slot}'`)
          assert.strictEqual(error._tag, "DecodeError")
          assert.include(error.message, "the slot was made or once read with two_phase")
          assert.isEmpty(stream.changes)
        }),
      { since: 15 }
    )
  }
})
