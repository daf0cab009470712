/**
 * What must not get out: passwords, connection strings, keys and row values, planted in every place where they are, and
 * looked for in everything that is let out: logs of all levels, spans, metrics, failures, and what the command prints.
 *
 * Rows do reach the handler, and the command's standard output. A handler's own failure is the program's, and holds
 * what it was given.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import {
  Handler,
  nextLsn,
  Outbox,
  Pgoutput,
  Table,
  TransactionSpill,
  Wal2Json,
  withLogicalStream
} from "@replicant/core"
import { Cause, Effect, Exit, Fiber, Layer, Metric, Redacted, Schedule, Schema } from "effect"
import { listen } from "../support/Emitted.ts"
import { eventually } from "../support/eventually.ts"
import { fault, faultTitle } from "../support/Faults.ts"
import { logicalOptions, walSender } from "../support/Follow.ts"
import {
  canary,
  errorOf,
  leaks,
  listened,
  listenTo,
  quoting,
  secretId,
  secrets,
  soon,
  streamOf,
  throughout
} from "../support/Secrets.ts"
import { onServer } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

describe("what listens to a program", () => {
  it.effect("finds a secret wherever it is let out", () =>
    Effect.gen(function* () {
      const lets: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
        message: Effect.logTrace(`the row ${canary}`),
        object: Effect.logDebug("the row", { row: { deep: [{ word: canary }] } }),
        cause: Effect.logError("failed", Cause.fail(new Error("no", { cause: new Error(canary) }))),
        annotation: Effect.annotateLogs(Effect.logInfo("x"), { row: canary }),
        "log span": Effect.withLogSpan(Effect.logInfo("x"), canary),
        "span name": Effect.withSpan(Effect.void, canary),
        "span attribute": Effect.withSpan(Effect.void, "s", { attributes: { row: { word: canary } } }),
        "span annotation": Effect.withSpan(Effect.annotateCurrentSpan("row", canary), "s"),
        "span failure": Effect.exit(Effect.withSpan(Effect.fail({ _tag: "Refused", word: canary }), "s")),
        "span defect": Effect.exit(Effect.withSpan(Effect.die(new Error(canary)), "s")),
        label: Metric.update(Metric.withAttributes(Metric.counter("canary"), { row: canary }), 1)
      }
      for (const [how, program] of Object.entries(lets)) {
        const emitted = listen()
        yield* Effect.provide(program, emitted.layer)
        yield* emitted.readMetrics
        assert.isNotEmpty(leaks(emitted.all, [canary]), how)
      }
      for (const failure of [
        new Error(canary),
        Cause.die(canary),
        { deep: { word: canary } },
        Redacted.make("x", { label: canary })
      ]) {
        const emitted = listen()
        emitted.failed(failure)
        assert.isNotEmpty(leaks(emitted.all, [canary]))
      }
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("a stream that runs well lets no row value out", () => {
  const plugin = (workspace: Workspace, options: Partial<Pgoutput.Options> = {}) =>
    Pgoutput.make({ publications: [workspace.publication], ...options })

  listened("change by change, in text and in binary", (server, emitted) =>
    Effect.gen(function* () {
      for (const format of ["text", "binary"] as const) {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        const { hasSeen } = yield* throughout(workspace, emitted, (saw) =>
          streamOf(workspace, saw, { plugin: plugin(workspace, { format }) })
        )
        assert.isTrue(hasSeen)
      }
    })
  )

  listened("array by array, and by transactions, within spans of the handler's own", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      const arrays = yield* throughout(workspace, emitted, (saw) =>
        withLogicalStream(
          logicalOptions(workspace),
          Handler.arrays((changes) =>
            Effect.sync(() => {
              for (const change of changes) saw(change)
              return nextLsn(changes.at(-1)!)
            }).pipe(Effect.withSpan("handler"))
          )
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert.isTrue(arrays.hasSeen)
      yield* workspace.sql("TRUNCATE secrets, named")
      const transactions = yield* throughout(workspace, emitted, (saw) =>
        withLogicalStream(
          logicalOptions(workspace),
          Handler.transactions(({ changes }) =>
            Effect.sync(() => {
              for (const change of changes) saw(change)
            })
          )
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert.isTrue(transactions.hasSeen)
    })
  )

  listened(
    "in progress, and gathered in files, of which none is left",
    (server, emitted) =>
      Effect.gen(function* () {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-spill-"))),
          (path) => Effect.sync(() => rmSync(path, { recursive: true }))
        )
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        const layer = walSender(workspace, { settings: { logical_decoding_work_mem: "64kB" } })
        const spill = TransactionSpill.layer({ directory, maxBytesInMemory: 0 }).pipe(
          Layer.provide(NodeFileSystem.layer)
        )
        const options = { ...logicalOptions(workspace), plugin: plugin(workspace, { streaming: "on" }) }
        let _hasSpilled = false
        const gathered = yield* throughout(workspace, emitted, (saw) =>
          withLogicalStream(options, (change) =>
            Effect.sync(() => {
              _hasSpilled ||= readdirSync(directory).length > 0
              saw(change)
              return nextLsn(change)
            })
          ).pipe(Effect.provide(layer), Effect.provide(spill))
        )
        assert.isTrue(gathered.hasSeen)
        yield* workspace.sql("TRUNCATE secrets, named")
        const large = `INSERT INTO secrets (id, word) SELECT n, '${canary}' FROM generate_series(100, 3000) n`
        const fiber = yield* Effect.forkScoped(
          withLogicalStream({ ...options, inProgress: "deliver" }, (change) => Effect.succeed(nextLsn(change))).pipe(
            Effect.provide(layer)
          )
        )
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql(large)
        const lsn = yield* workspace.currentWalLsn
        yield* eventually(
          Effect.map(
            workspace.sql(
              `SELECT FROM pg_replication_slots WHERE slot_name = '${workspace.slot}' AND confirmed_flush_lsn >= '${lsn}'`
            ),
            (rows) => rows.length > 0
          )
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(readdirSync(directory), [])
      }),
    { timeout: 120_000 }
  )

  listened("while it is disconnected again and again", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      const terminate = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
      let cuts = 0
      const { hasSeen } = yield* throughout(workspace, emitted, (saw) =>
        withLogicalStream({ ...logicalOptions(workspace), ...soon }, (change) =>
          Effect.gen(function* () {
            saw(change)
            if (change._tag === "Insert" && cuts < 3 && cuts++ < 3) yield* Effect.ignore(workspace.sql(terminate))
            return nextLsn(change)
          })
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert.isTrue(hasSeen)
      assert.isTrue(emitted.all.some(({ by, text }) => by === "log" && text.includes("reconnecting")))
    })
  )
})

describe("a stream that fails lets no row value out", () => {
  for (const format of ["text", "binary"] as const) {
    listened(`for a decoder that throws the value, in ${format}`, (server, emitted) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        for (const type of ["text", "jsonb", "bytea", "text[]"]) {
          const types = { byName: new Map([[type, quoting]]) }
          const plugin = Pgoutput.make({ publications: [workspace.publication], types, format })
          const slot = `${workspace.slot}_${type.replace("[]", "_array")}`
          const { exit } = yield* throughout({ ...workspace, slot }, emitted, (saw) =>
            streamOf(workspace, saw, { plugin, slot })
          )
          assert.strictEqual(errorOf(exit)?._tag, "DecodeError")
          yield* workspace.sql("TRUNCATE secrets, named")
        }
      })
    )
  }

  for (const [filter, sqlState] of [
    ["make_date(id, 99, 99) > '2026-01-01'", "22008"],
    ["chr(id) <> 'x'", "54000"],
    ["decode(word, 'base64') IS NOT NULL", "22023"]
  ] as const) {
    listened(
      `for a row filter, ${filter}, about which the server quotes the value`,
      (server, emitted) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, {
            sql: secrets,
            publication: `FOR TABLE secrets WHERE (${filter})`
          })
          const fiber = yield* Effect.forkScoped(
            streamOf(workspace, () => undefined, { reconnect: Schedule.recurs(3) })
          )
          yield* eventually(workspace.isStreaming())
          yield* workspace.sql(`INSERT INTO secrets VALUES (${secretId}, '${canary}!')`)
          const exit = yield* Fiber.await(fiber)
          if (Exit.isFailure(exit)) emitted.failed(exit.cause)
          assert.deepInclude(errorOf(exit), { _tag: "ServerError", sqlState })
          assert.deepStrictEqual(leaks(emitted.all, [String(secretId)]), [])
        }),
      { since: 15 }
    )
  }

  listened("for a row that does not fit its declaration", (server, emitted) =>
    Effect.gen(function* () {
      const throwing = Schema.String.check(
        Schema.makeFilter((text) => (text.includes(canary) ? `is ${text}` : undefined))
      )
      const fields: Readonly<Record<string, Schema.Codec<unknown, unknown>>> = {
        "a type": Schema.Number,
        "a literal": Schema.Literals(["a", "b"]),
        "a check that quotes it": throwing,
        "a number in text": Schema.FiniteFromString
      }
      for (const [index, field] of Object.values(fields).entries()) {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        const Secrets = Table.make(
          "public.secrets",
          Schema.Struct({ id: Schema.Number, word: field as Schema.Codec<string> })
        )
        const { exit } = yield* throughout(workspace, emitted, () =>
          withLogicalStream(
            logicalOptions(workspace),
            Table.handler([Secrets], (change) => Effect.succeed(nextLsn(change)))
          ).pipe(Effect.provide(walSender(workspace)))
        )
        assert.strictEqual(errorOf(exit)?._tag, "RowMismatch", `field ${index}`)
      }
    })
  )

  listened("for a message that does not fit its declaration", (server, emitted) =>
    Effect.gen(function* () {
      const Message = Outbox.make("p", Schema.Struct({ id: Schema.Number }))
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      const decode = Outbox.decoder([Message])
      const { exit } = yield* throughout(workspace, emitted, () =>
        withLogicalStream(logicalOptions(workspace), (change) =>
          Effect.as(Effect.fromResult(decode([change])), nextLsn(change))
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert.strictEqual(errorOf(exit)?._tag, "MessageMismatch")
    })
  )

  listened("for a handler that fails, or dies, unless it says so itself", (server, emitted) =>
    Effect.gen(function* () {
      for (const failure of [Effect.fail({ _tag: "StoreFailed" as const }), Effect.die(new Error("no store"))]) {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        const { exit } = yield* throughout(workspace, emitted, () =>
          withLogicalStream(logicalOptions(workspace), (change) =>
            change._tag === "Insert" ? failure : Effect.succeed(nextLsn(change))
          ).pipe(Effect.provide(walSender(workspace)))
        )
        assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause))
      }
    })
  )

  fault("X7", "for a handler that says so itself: it is not logged, and not among attributes or metrics", (server) =>
    Effect.gen(function* () {
      const emitted = listen()
      yield* Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        const { exit } = yield* throughout(workspace, listen(), () =>
          withLogicalStream(logicalOptions(workspace), (change) =>
            change._tag === "Insert"
              ? Effect.fail({ _tag: "Refused" as const, change })
              : Effect.succeed(nextLsn(change))
          ).pipe(Effect.provide(walSender(workspace)))
        )
        assert.strictEqual(errorOf(exit)?._tag, "Refused")
      }).pipe(Effect.provide(emitted.layer))
      yield* emitted.readMetrics
      const told = emitted.all.filter(({ by }) => by !== "span")
      assert.deepStrictEqual(leaks(told, [canary, server.password]), [])
    })
  )

  listened("for a directory of files that is not there", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      const plugin = Pgoutput.make({ publications: [workspace.publication], streaming: "on" })
      const spill = TransactionSpill.layer({ directory: "/nowhere/at/all", maxBytesInMemory: 0 })
      const fiber = yield* withLogicalStream({ ...logicalOptions(workspace), plugin }, (change) =>
        Effect.succeed(nextLsn(change))
      ).pipe(
        Effect.provide(walSender(workspace, { settings: { logical_decoding_work_mem: "64kB" } })),
        Effect.provide(Layer.provide(spill, NodeFileSystem.layer)),
        Effect.forkScoped
      )
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql(`INSERT INTO secrets (id, word) SELECT n, '${canary}' FROM generate_series(100, 3000) n`)
      const exit = yield* Fiber.await(fiber)
      if (Exit.isFailure(exit)) emitted.failed(exit.cause)
      assert.strictEqual(errorOf(exit)?._tag, "SpillFailed")
    })
  )

  onServer("wal2json", faultTitle("X7", "for a decoder that throws the value, under wal2json"), (server) =>
    listenTo(server, (emitted) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: secrets })
        for (const formatVersion of [1, 2] as const) {
          const plugin = Wal2Json.make({ formatVersion, types: { byName: new Map([["text", quoting]]) } })
          const slot = `${workspace.slot}_${formatVersion}`
          const { exit } = yield* throughout({ ...workspace, slot }, emitted, (saw) =>
            streamOf(workspace, saw, { plugin, slot })
          )
          assert.strictEqual(errorOf(exit)?._tag, "DecodeError")
          yield* workspace.sql("TRUNCATE secrets, named")
        }
      })
    )
  )
})
