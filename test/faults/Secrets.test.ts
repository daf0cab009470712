/**
 * What must not get out: passwords, connection strings, keys and row values, planted in every place where they are, and
 * looked for in everything that is let out: logs of all levels, spans, metrics, failures, and what the command prints.
 *
 * Rows do reach the handler, and the command's standard output. A handler's own failure is the program's, and holds what it
 * was given.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import {
  type Change,
  type LogicalStreamOptions,
  nextLsn,
  Outbox,
  Pgoutput,
  Snapshot,
  Table,
  TransactionSpill,
  Wal2Json,
  withInProgressStream,
  withLogicalStream,
  withLogicalStreamArray,
  withTransactionStream
} from "@replicant/core"
import { PgConfig, PgWalSender } from "@replicant/node"
import {
  Cause,
  ConfigProvider,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Redacted,
  Schedule,
  Schema,
  type Scope
} from "effect"
import { type Emission, type Emitted, listen, printed } from "../support/Emitted.ts"
import { eventually } from "../support/eventually.ts"
import { fault, faultTitle } from "../support/Faults.ts"
import { logicalOptions, walSender } from "../support/Follow.ts"
import { replicant, startReplicant } from "../support/Replicant.ts"
import { once, onServer, type Server, type ServerTestOptions } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

/** Part of everything that is planted, and of nothing else. */
const canary = "canary4711"
/** As a walsender would print the bytes of it. */
const canaryHex = Buffer.from(canary).toString("hex")

/** A value that is a number. */
const secretId = 471_147_114

const leaks = (emitted: ReadonlyArray<Emission>, secrets: ReadonlyArray<string>): ReadonlyArray<string> =>
  emitted.flatMap(({ by, text }) =>
    secrets.filter((secret) => text.includes(secret)).map((secret) => `${secret} by ${by}: ${text.slice(0, 2000)}`)
  )

/** A test whose body is listened to. Whatever it lets out must hold none of the secrets, and there must be something. */
const listened = (
  title: string,
  body: (server: Server, emitted: Emitted) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options?: ServerTestOptions
): void => fault("X7", title, (server) => listenTo(server, (emitted) => body(server, emitted)), options)

const listenTo = Effect.fnUntraced(function* (
  server: Server,
  body: (emitted: Emitted) => Effect.Effect<unknown, unknown, Scope.Scope>
) {
  const emitted = listen()
  yield* Effect.provide(body(emitted), emitted.layer)
  yield* emitted.readMetrics
  assert.deepStrictEqual(leaks(emitted.all, [canary, canaryHex, server.password]), [])
  for (const by of ["span", "metric"] as const)
    assert.isTrue(
      emitted.all.some((each) => each.by === by),
      `no ${by}`
    )
})

const secrets = `
  CREATE TABLE secrets (id int PRIMARY KEY, word text, bytes bytea, json jsonb, words text[]);
  ALTER TABLE secrets REPLICA IDENTITY FULL, ALTER word SET STORAGE EXTERNAL;
  CREATE TABLE named (${canary.slice(0, 6)} text PRIMARY KEY)`

/** Every kind of change, each with the canary in it. */
const statements = [
  `INSERT INTO secrets SELECT n, '${canary}', '${canary}', '{"${canary}": ["${canary}"]}', '{${canary}}' FROM generate_series(1, 40) n`,
  `UPDATE secrets SET word = repeat('${canary}', 400) WHERE id < 5`,
  "UPDATE secrets SET id = -id WHERE id < 5",
  "DELETE FROM secrets WHERE id < 0",
  `INSERT INTO named VALUES ('${canary}')`,
  `BEGIN; SELECT pg_logical_emit_message(true, 'p', '${canary}'); TRUNCATE secrets; COMMIT`,
  `SELECT pg_logical_emit_message(false, 'p', '${canary}')`,
  "INSERT INTO secrets (id) VALUES (0)"
]

/** Whether this is the last of them. */
const isLast = (change: Change): boolean => change._tag === "Insert" && change.row.id === 0

/** Runs a stream over the statements until it saw the last, or failed. Gives whether the canary arrived at all. */
const throughout = Effect.fnUntraced(function* <E>(
  workspace: Workspace,
  emitted: Emitted,
  stream: (saw: (change: Change) => void) => Effect.Effect<never, E>
) {
  let isDone = false
  let hasSeen = false
  const fiber = yield* Effect.forkScoped(
    stream((change) => {
      if (isLast(change)) isDone = true
      else if (printed(change).some((text) => text.includes(canary))) hasSeen = true
    })
  )
  yield* eventually(
    Effect.map(workspace.isStreaming(), (isStreaming) => isStreaming || fiber.pollUnsafe() !== undefined),
    { what: "the stream began" }
  )
  for (const statement of statements) yield* workspace.sql(statement)
  yield* eventually(Effect.sync(() => isDone || fiber.pollUnsafe() !== undefined))
  const exit = yield* fiber.pollUnsafe() === undefined
    ? Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
    : Fiber.await(fiber)
  if (Exit.isFailure(exit)) emitted.failed(exit.cause)
  return { hasSeen, exit }
})

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isFailReason)[0]?.error : undefined

const soon = { reconnect: Schedule.spaced("50 millis") }

/** A stream of the workspace, all of it acknowledged. */
const streamOf = (workspace: Workspace, saw: (change: Change) => void, overrides: Partial<LogicalStreamOptions> = {}) =>
  withLogicalStream({ ...logicalOptions(workspace), ...soon, ...overrides }, (change) =>
    Effect.sync(() => {
      saw(change)
      return nextLsn(change)
    })
  ).pipe(Effect.provide(walSender(workspace)))

/** A decoder that tells what it will not have. */
const quoting = (text: string): never => {
  throw new Error(`cannot take ${text}`, { cause: new TypeError(text) })
}

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
        withLogicalStreamArray(logicalOptions(workspace), (changes) =>
          Effect.sync(() => {
            for (const change of changes) saw(change)
            return nextLsn(changes.at(-1)!)
          }).pipe(Effect.withSpan("handler"))
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert.isTrue(arrays.hasSeen)
      yield* workspace.sql("TRUNCATE secrets, named")
      const transactions = yield* throughout(workspace, emitted, (saw) =>
        withTransactionStream(logicalOptions(workspace), ({ changes }) =>
          Effect.sync(() => {
            for (const change of changes) saw(change)
          })
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
          withInProgressStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(Effect.provide(layer))
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

describe("an initial snapshot lets no row value out", () => {
  const snapshot = (workspace: Workspace, emitted: Emitted, plugin: Partial<Pgoutput.Options> = {}) =>
    Effect.gen(function* () {
      const rows: Array<unknown> = []
      const options = {
        slot: workspace.slot,
        plugin: Pgoutput.make({ publications: [workspace.publication], ...plugin }),
        snapshot: "only" as const,
        reconnect: Schedule.recurs(1)
      }
      const exit = yield* Snapshot.withSnapshotStream(options, (change) => {
        if (change._tag === "SnapshotRow") rows.push(change.row)
        return Effect.succeed(undefined)
      }).pipe(Effect.provide(walSender(workspace)), Effect.exit)
      if (Exit.isFailure(exit)) emitted.failed(exit.cause)
      return { rows, error: errorOf(exit) }
    })

  listened("when it runs well, nor when a decoder throws one", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      yield* workspace.sql(statements[0]!)
      const { error, rows } = yield* snapshot(workspace, emitted)
      assert.isUndefined(error)
      assert.lengthOf(rows, 40)
      assert.include(JSON.stringify(rows), canary)
      const types = { byName: new Map([["text", quoting]]) }
      assert.strictEqual((yield* snapshot(workspace, emitted, { types })).error?._tag, "DecodeError")
      // A copy is no stream, and has no metrics of one.
      yield* Metric.update(Metric.counter("copies"), 1)
    })
  )

  listened(
    "when the server fails over one, and quotes it",
    (server, emitted) =>
      Effect.gen(function* () {
        for (const filter of ["make_date(id, 99, 99) > '2026-01-01'", "chr(id) <> 'x'"]) {
          const workspace = yield* makeWorkspace(server, {
            sql: secrets,
            publication: `FOR TABLE secrets WHERE (${filter})`
          })
          yield* workspace.sql(`INSERT INTO secrets VALUES (${secretId}, '${canary}')`)
          assert.deepInclude((yield* snapshot(workspace, emitted)).error, { _tag: "ServerError" })
        }
        assert.deepStrictEqual(leaks(emitted.all, [String(secretId)]), [])
        yield* Metric.update(Metric.counter("copies"), 1)
      }),
    { since: 15 }
  )
})

describe("a connection that fails lets no secret out", () => {
  /** Tries to connect, and gives the failure. */
  const attempt = (emitted: Emitted, options: PgConfig.Options) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        withLogicalStream(
          { slot: "s", plugin: Pgoutput.make({ publications: ["p"] }), reconnect: Schedule.recurs(1) },
          () => Effect.succeed(undefined)
        ).pipe(Effect.provide(PgWalSender.layer(options)))
      )
      if (Exit.isFailure(exit)) emitted.failed(exit.cause)
      return errorOf(exit)?._tag
    })

  listened("when the password is wrong, as text or in a URL, or the role is not there", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const wrong = Redacted.make(`${canary} wrong`)
      assert.strictEqual(yield* attempt(emitted, { ...workspace.connection, password: wrong }), "AuthenticationFailed")
      const url = Redacted.make(workspace.url(undefined, `${canary}-url`))
      assert.strictEqual(yield* attempt(emitted, { url }), "AuthenticationFailed")
      const role = Redacted.make(workspace.url("nobody", `${canary}-role`))
      assert.strictEqual(yield* attempt(emitted, { url: role }), "AuthenticationFailed")
      const asked = Effect.succeed(Redacted.make(`${canary} asked`))
      assert.strictEqual(yield* attempt(emitted, { ...workspace.connection, password: asked }), "AuthenticationFailed")
    })
  )

  listened("when nobody listens, the name does not resolve, or there is no TLS", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const password = Redacted.make(canary)
      const { connection } = workspace
      assert.strictEqual(yield* attempt(emitted, { ...connection, password, port: 1 }), "ConnectionError")
      assert.strictEqual(
        yield* attempt(emitted, { ...connection, password, host: "no.such.host.invalid" }),
        "ConnectionError"
      )
      assert.strictEqual(yield* attempt(emitted, { ...connection, password, sslmode: "require" }), "ConnectionError")
      const url = Redacted.make(`postgres://user:${canary}@127.0.0.1:1/db?sslmode=require`)
      assert.strictEqual(yield* attempt(emitted, { url }), "ConnectionError")
    })
  )

  listened("when what it is given makes no sense", (server, emitted) =>
    Effect.gen(function* () {
      const { connection } = yield* makeWorkspace(server)
      const urls = [
        `postgres://user:${canary}@host:notaport/db`,
        `postgres://user:${canary}@host/db?sslmode=${canary}x`,
        `postgres://user:${canary}@host/db?nonsense=1`,
        `mysql://user:${canary}@host/db`,
        `${canary}`,
        `host=h password=${canary}`,
        `postgres://user:${canary}%zz@host/db`,
        `postgres://user@host/db?password=${canary}&connect_timeout=x`,
        `postgres://user@host/db?sslpassword=${canary}&sslcert=x`
      ]
      for (const url of urls.filter((each) => !each.includes(`sslmode=${canary}`))) {
        const failure = yield* attempt(emitted, { url: Redacted.make(url) })
        assert.isDefined(failure, url)
        const fromEnvironment = yield* Effect.exit(
          Effect.scoped(Layer.build(PgWalSender.layerConfig)).pipe(
            Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ DATABASE_URL: url, PGPASSWORD: canary })))
          )
        )
        if (Exit.isFailure(fromEnvironment)) emitted.failed(fromEnvironment.cause)
      }
      const pem = (kind: string, text: string) => `-----BEGIN ${kind}-----\n${text}\n-----END ${kind}-----\n`
      const key = Redacted.make(pem("PRIVATE KEY", Buffer.from(canary).toString("base64")))
      const tls = { ...connection, sslmode: "require", sslkey: key } as const
      for (const options of [
        { ...tls, sslcert: pem("CERTIFICATE", "AAAA") },
        { ...tls, sslcert: "/nowhere/at/all" },
        { ...tls, sslcert: pem("CERTIFICATE", "AAAA"), sslpassword: Redacted.make(canary) },
        { ...tls, sslkey: Redacted.make(`${canary} is no key`), sslcert: pem("CERTIFICATE", "AAAA") }
      ]) {
        assert.strictEqual(yield* attempt(emitted, options), "InvalidOption")
      }
    })
  )

  listened("in the configuration itself, whoever prints it", (server, emitted) =>
    Effect.gen(function* () {
      const { connection } = yield* makeWorkspace(server)
      const options: PgConfig.Options = {
        ...connection,
        url: Redacted.make(`postgres://user:${canary}@host/db`),
        password: Redacted.make(canary),
        sslpassword: Redacted.make(canary),
        sslcert: "x",
        sslkey: Redacted.make(canary)
      }
      emitted.failed(options)
      const config = PgConfig.resolve(options)
      emitted.failed(config)
      emitted.failed(PgWalSender.layer(options))
      if (config._tag === "Success") emitted.failed(PgWalSender.make(config.success))
      yield* Effect.withSpan(Effect.logInfo(options), "configured", { attributes: { options } })
      yield* attempt(emitted, { ...connection, port: 1 })
    })
  )
})

describe("the command lets no secret out", () => {
  const withPassword = (workspace: Workspace, password?: string) => ({
    DATABASE_URL: workspace.url(undefined, password)
  })
  const args = (workspace: Workspace, ...more: ReadonlyArray<string>) => [
    ...["stream", "--slot", workspace.slot, "--publication", workspace.publication, "--log-level", "trace", ...more]
  ]

  for (const json of [[], ["--json"]]) {
    const how = json.length === 0 ? "in words" : "as JSON"
    fault(
      "X7",
      `and writes rows to standard output alone, ${how}`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: secrets })
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
          for (const format of [[], ["--pretty"], ["--boundaries"], ["--streaming", "on"]]) {
            for (const statement of statements) yield* workspace.sql(statement)
            const until = yield* workspace.currentWalLsn
            const ended = yield* replicant(
              args(workspace, "--until-lsn", until, ...format, ...json),
              withPassword(workspace)
            )
            assert.strictEqual(ended.code, 0, ended.stderr)
            assert.include(ended.stdout, canary, "rows are its result")
            assert.notInclude(ended.stderr, canary)
            assert.notInclude(ended.stdout + ended.stderr, server.password)
            yield* workspace.sql("TRUNCATE secrets, named")
          }
        }),
      once
    )

    fault(
      "X7",
      `when it fails, ${how}`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, {
            sql: secrets,
            publication: "FOR TABLE secrets WHERE (decode(word, 'base64') IS NOT NULL)"
          })
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
          yield* workspace.sql(`INSERT INTO secrets VALUES (1, '${canary}!')`)
          const host = "127.0.0.1"
          const failures: ReadonlyArray<readonly [args: ReadonlyArray<string>, env: Readonly<Record<string, string>>]> =
            [
              [args(workspace, ...json), withPassword(workspace)],
              [args(workspace, ...json), withPassword(workspace, `${canary}-wrong`)],
              [args(workspace, "--url", `postgres://u:${canary}@${host}:1/db`, ...json), {}],
              [args(workspace, "--url", `postgres://u:${canary}@${host}:notaport/db`, ...json), {}],
              [args(workspace, `--url=postgres://u:${canary}@${host}/db?nonsense=1`, ...json), {}],
              [args(workspace, "--url", `host=${host} password=${canary}`, ...json), {}],
              [args(workspace, ...json), { PGHOST: host, PGPORT: "1", PGUSER: "u", PGPASSWORD: canary }],
              [["identify", "--url", `postgres://u:${canary}@${host}:1/db`, ...json], {}],
              [["slot", "list", "--url", `postgres://u:${canary}@${host}/db`, "--nonsense", ...json], {}]
            ]
          for (const [given, env] of failures) {
            const ended = yield* Effect.scoped(Effect.flatMap(startReplicant(given, env), (running) => running.ended))
            assert.notStrictEqual(ended.code, 0, given.join(" "))
            assert.isNotEmpty(ended.stderr)
            assert.notInclude(ended.stdout + ended.stderr, canary, given.join(" "))
            assert.notInclude(ended.stdout + ended.stderr, server.password)
          }
        }),
      { ...once, timeout: 180_000 }
    )
  }
})
