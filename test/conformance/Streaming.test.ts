/** Protocol 2 to 4: transactions sent while they are in progress, and two-phase commit. */
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import {
  type InProgress,
  nextLsn,
  Pgoutput,
  type ReplicationError,
  TransactionSpill,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Layer, Result } from "effect"
import { expected, record, scenario, transcript } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { logicalOptions, walSender } from "../support/Follow.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

/** Makes the walsenders of this database stream a transaction beyond so little. */
const streamsEarly = `
  DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database());
  END $$;`

const tables = `${streamsEarly}
  CREATE TABLE t (a int PRIMARY KEY, b text);
  CREATE TABLE small (a int PRIMARY KEY)`

/** Little enough for a few thousand rows to be put aside in files. */
const spill = (maxBytesInMemory: number) =>
  TransactionSpill.layer({ maxBytesInMemory }).pipe(Layer.provide(NodeFileSystem.layer))

const modes: ReadonlyArray<{ readonly streaming: "on" | "parallel"; readonly since: number }> = [
  { streaming: "on", since: 14 },
  { streaming: "parallel", since: 16 }
]

/** One row once the server has streamed a transaction while it was in progress. */
const streamed = (slot: string) =>
  `SELECT FROM pg_stat_replication_slots WHERE slot_name = '${slot}' AND stream_txns > 0`

/** `from` to `to`, each with a text that fills a block with some two thousand of them. */
const rows = (from: number, to: number) =>
  `INSERT INTO t SELECT i, repeat('x', 20) FROM generate_series(${from}, ${to}) i`
const inserts = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `I t{a=${from + index},b=${"x".repeat(20)}}`)

/** A stream that shows transactions in progress, and all that it showed. */
const followInProgress = Effect.fnUntraced(function* (
  workspace: Workspace,
  plugin: Omit<Pgoutput.Options, "publications">
) {
  const seen: Array<InProgress.ChangeInProgress> = []
  const fiber = yield* withLogicalStream(
    {
      ...logicalOptions(workspace),
      plugin: Pgoutput.make({ publications: [workspace.publication], ...plugin }),
      inProgress: "deliver"
    },
    (change) => {
      seen.push(change)
      return Effect.succeed(nextLsn(change))
    }
  ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
  yield* eventually(
    Effect.map(workspace.isStreaming(), (streaming) => streaming || fiber.pollUnsafe() !== undefined),
    { what: "the stream began" }
  )
  const saw = (tag: InProgress.ChangeInProgress["_tag"], count = 1) =>
    Effect.raceFirst(
      eventually(
        Effect.sync(() => seen.filter((change) => change._tag === tag).length >= count),
        { what: `${count} of ${tag}` }
      ),
      Fiber.join(fiber)
    )
  return { seen, saw }
})

/** A stream that must not begin. */
const refusal = (
  workspace: Workspace,
  plugin: Omit<Pgoutput.Options, "publications">
): Effect.Effect<ReplicationError> =>
  withLogicalStream(
    { ...logicalOptions(workspace), plugin: Pgoutput.make({ publications: [workspace.publication], ...plugin }) },
    () => Effect.succeed(undefined)
  ).pipe(Effect.provide(Layer.merge(walSender(workspace), spill(1 << 20))), Effect.flip)

describe("Protocol 2 to 4", () => {
  for (const { since, streaming } of modes) {
    for (const [where, layer] of [
      ["in memory", spill(1 << 26)],
      ["in files", spill(1 << 16)]
    ] as const) {
      scenario(
        "stream-large",
        `delivers a large transaction after the small one that committed first, gathered ${where} (${streaming})`,
        (server) =>
          Effect.gen(function* () {
            const recorder = yield* record(server, { sql: tables, plugin: { streaming }, layer })
            const large = yield* recorder.session
            yield* large.query(`BEGIN; ${rows(1, 6000)}`)
            yield* recorder.run("INSERT INTO small VALUES (1)", "INSERT INTO t VALUES (0, 'whole')")
            yield* large.query(`${rows(6001, 9000)}; COMMIT`)
            yield* recorder.run("INSERT INTO t VALUES (10000, 'after')")
            yield* recorder.expect("I small{a=1}", "I t{a=0,b=whole}", inserts(1, 9000), "I t{a=10000,b=after}")
            yield* eventually(
              Effect.map(recorder.sql(streamed(recorder.slot)), (found) => found.length > 0),
              { what: "the server streamed it in progress" }
            )
          }),
        { since }
      )
    }

    scenario(
      "stream-abort-sub",
      `drops exactly the changes of what was rolled back (${streaming})`,
      (server) =>
        Effect.gen(function* () {
          const recorder = yield* record(server, { sql: tables, plugin: { streaming }, layer: spill(1 << 17) })
          const large = yield* recorder.session
          yield* large.query(`BEGIN; ${rows(1, 3000)}; SAVEPOINT gone; ${rows(3001, 6000)}`)
          // InProgress.Streamed by now, with the table described in the subtransaction too.
          yield* large.query(`ALTER TABLE t ADD c int; UPDATE t SET c = 1 WHERE a <= 3000`)
          yield* large.query(`ROLLBACK TO gone; ${rows(6001, 8000)}; SAVEPOINT kept; ${rows(8001, 9000)}`)
          yield* large.query(`SAVEPOINT within; ${rows(9001, 9500)}; RELEASE within; RELEASE kept; COMMIT`)
          yield* large.query(`BEGIN; ${rows(20_000, 25_000)}; ROLLBACK`)
          yield* recorder.run("INSERT INTO t VALUES (10000, 'after')")
          yield* recorder.expect([...inserts(1, 3000), ...inserts(6001, 9500)], "I t{a=10000,b=after}")
        }),
      { since }
    )
  }

  scenario("stream-large", "interleaves transactions, and delivers them in the order of their commits", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: tables, plugin: { streaming: "on" }, layer: spill(1 << 16) })
      const first = yield* recorder.session
      const second = yield* recorder.session
      const third = yield* recorder.session
      yield* first.query(`BEGIN; ${rows(1, 3000)}`)
      yield* second.query(`BEGIN; ${rows(10_001, 13_000)}`)
      yield* third.query(`BEGIN; ${rows(20_001, 23_000)}`)
      yield* first.query(rows(3001, 5000))
      yield* second.query(`${rows(13_001, 15_000)}; COMMIT`)
      yield* third.query("ROLLBACK")
      yield* first.query("COMMIT")
      yield* recorder.expect(inserts(10_001, 15_000), inserts(1, 5000))
    })
  )

  scenario(
    "stream-large",
    "shows blocks as they come, each change with its transaction's and its savepoint's id",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const { saw, seen } = yield* followInProgress(workspace, { streaming: "on" })
        const large = yield* workspace.session
        yield* large.query(`BEGIN; ${rows(1, 3000)}; SAVEPOINT kept; ${rows(3001, 6000)}`)
        yield* saw("StreamStop")
        const [start] = seen
        assert.deepInclude(start, { _tag: "StreamStart", isFirst: true })
        yield* workspace.sql("INSERT INTO small VALUES (1)")
        yield* saw("Commit")
        yield* large.query("COMMIT")
        yield* saw("StreamCommit")
        const streamedRows = seen.flatMap((change) =>
          change._tag === "Streamed" && change.change._tag === "Insert" ? [change.change.row.a] : []
        )
        assert.deepStrictEqual(
          streamedRows,
          Array.from({ length: 6000 }, (_, index) => index + 1)
        )
        const xids = new Set(seen.flatMap((change) => (change._tag === "Streamed" ? [change.xid] : [])))
        const subxids = new Set(seen.flatMap((change) => (change._tag === "Streamed" ? [change.subxid] : [])))
        assert.deepStrictEqual([xids.size, subxids.size], [1, 2])
        const whole = seen.filter(({ _tag }) => ["Begin", "Insert", "Commit"].includes(_tag))
        assert.deepStrictEqual(
          whole.map(({ _tag }) => _tag),
          ["Begin", "Insert", "Commit"]
        )
      })
  )

  for (const { since, streaming } of modes) {
    scenario(
      "stream-abort-sub",
      `shows an abort as it comes, of a savepoint and of the whole (${streaming})`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: tables })
          const { saw, seen } = yield* followInProgress(workspace, { streaming })
          const large = yield* workspace.session
          yield* large.query(`BEGIN; ${rows(1, 3000)}; SAVEPOINT gone; ${rows(3001, 6000)}`)
          // From PostgreSQL 18 the server looks first, and does not send what is known to be aborted.
          const ofSavepoint = ({ subxid, xid }: InProgress.Streamed) => subxid !== xid
          const savepoints = () =>
            new Set(
              seen.flatMap((change) => (change._tag === "Streamed" && ofSavepoint(change) ? [change.subxid] : []))
            )
          yield* eventually(Effect.sync(() => savepoints().size === 1))
          yield* large.query("ROLLBACK TO gone")
          yield* large.query(rows(6001, 9000))
          yield* saw("StreamAbort", 1)
          yield* eventually(Effect.sync(() => savepoints().size === 2))
          yield* large.query("ROLLBACK")
          yield* saw("StreamAbort", 3)
          const aborts = seen.flatMap((change) => (change._tag === "StreamAbort" ? [change] : []))
          const [{ xid }] = aborts as [(typeof aborts)[0]]
          // ROLLBACK TO leaves a savepoint of that name: what follows is a subtransaction's too.
          const subxids = savepoints()
          assert.lengthOf([...subxids], 2)
          assert.deepStrictEqual(
            aborts.map(({ subxid }) => subxid),
            [...subxids, xid]
          )
          for (const { abortLsn } of aborts) assert.strictEqual(abortLsn !== undefined, streaming === "parallel")
          assert.isEmpty(seen.filter((change) => change._tag === "StreamCommit"))
        }),
      { since }
    )
  }

  scenario("two-phase-off", "delivers what was prepared at its commit, and never what was rolled back", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: tables })
      yield* recorder.run(
        ...["BEGIN", "INSERT INTO t VALUES (1, 'prepared')", `PREPARE TRANSACTION '${recorder.slot}'`],
        "INSERT INTO t VALUES (2, 'other')",
        `COMMIT PREPARED '${recorder.slot}'`,
        ...["BEGIN", "INSERT INTO t VALUES (3, 'gone')", `PREPARE TRANSACTION '${recorder.slot}'`],
        `ROLLBACK PREPARED '${recorder.slot}'`
      )
      yield* recorder.expect("I t{a=2,b=other}", "I t{a=1,b=prepared}")
    })
  )

  for (const streaming of [undefined, "on", "parallel"] as const) {
    scenario(
      "two-phase-on",
      `delivers what is prepared when it is, then what became of it (streaming ${streaming ?? "off"})`,
      (server) =>
        Effect.gen(function* () {
          const recorder = yield* record(server, {
            sql: tables,
            plugin: { twoPhase: true, streaming },
            layer: spill(1 << 16)
          })
          const [first, second, open] = ["1st", 'it\'s "2nd"', "open"].map((name) => `${recorder.slot} ${name}`)
          const quoted = (gid: string | undefined) => `'${gid!.replaceAll("'", "''")}'`
          yield* recorder.run(
            ...["BEGIN", rows(1, 3000), `PREPARE TRANSACTION ${quoted(first)}`],
            "INSERT INTO t VALUES (0, 'other')",
            `COMMIT PREPARED ${quoted(first)}`,
            ...["BEGIN", "INSERT INTO t VALUES (-1, 'gone')", `PREPARE TRANSACTION ${quoted(second)}`],
            `ROLLBACK PREPARED ${quoted(second)}`,
            ...["BEGIN", "INSERT INTO t VALUES (-2, 'open')", `PREPARE TRANSACTION ${quoted(open)}`]
          )
          const changes = yield* recorder.take
          yield* recorder.run(`ROLLBACK PREPARED ${quoted(open)}`)
          const print = (gid: string | undefined) => transcript([{ _tag: "Prepare", gid } as never])[0]!.slice(2)
          assert.deepStrictEqual(
            transcript(changes),
            expected([
              [...inserts(1, 3000), `P ${print(first)}`],
              "I t{a=0,b=other}",
              `CP ${print(first)}`,
              ["I t{a=-1,b=gone}", `P ${print(second)}`],
              `RP ${print(second)}`,
              ["I t{a=-2,b=open}", `P ${print(open)}`]
            ])
          )
          const begins = changes.flatMap((change) => (change._tag === "Begin" ? [change.gid] : []))
          assert.deepStrictEqual(begins, [first, undefined, second, open])
        }),
      { since: streaming === "parallel" ? 16 : 15 }
    )
  }

  scenario("option-errors", "refuses what the server cannot do before it asks for it, by version", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const asked = [
        [16, "streaming 'parallel'", { streaming: "parallel" }],
        [16, "origin", { origin: "none" }],
        [15, "two_phase", { twoPhase: true }]
      ] as const
      for (const [since, feature, options] of asked) {
        if (server.majorVersion >= since) continue
        assert.deepInclude(yield* refusal(workspace, options), {
          _tag: "UnsupportedByServer",
          feature: `pgoutput's option ${feature}`,
          neededVersion: since * 10_000
        })
      }
      assert.isUndefined(yield* workspace.findSlot(), "no slot was made for it")
    })
  )

  scenario(
    "option-errors",
    "hands on what the server says to an option that it does not have, and does not try again",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const plugin = Pgoutput.make({ publications: [workspace.publication] })
        const names = `"${workspace.publication}"`
        const answers = [
          ["0A000", "proto_version", [["proto_version", "5"]]],
          [
            "22023",
            "streaming",
            [
              ["proto_version", "1"],
              ["streaming", "on"]
            ]
          ],
          [
            "XX000",
            "nonsense",
            [
              ["proto_version", "1"],
              ["nonsense", "1"]
            ]
          ],
          ...(server.majorVersion < 16
            ? [
                [
                  "XX000",
                  "origin",
                  [
                    ["proto_version", "1"],
                    ["origin", "none"]
                  ]
                ] as const
              ]
            : [])
        ] as const
        for (const [sqlState, word, options] of answers) {
          const error = yield* withLogicalStream(
            {
              ...logicalOptions(workspace),
              plugin: { ...plugin, options: () => Result.succeed([...options, ["publication_names", names] as const]) }
            },
            () => Effect.succeed(undefined)
          ).pipe(Effect.provide(walSender(workspace)), Effect.flip)
          assert.deepInclude(error, { _tag: "ServerError", stage: "StartReplication", sqlState, isRetryable: false })
          assert.include((error as { serverMessage: string }).serverMessage, word)
        }
      })
  )
})
