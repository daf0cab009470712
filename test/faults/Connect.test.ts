/**
 * Faults on the way to a stream: a peer that falls silent, a server that is full, starting or stopping, a pooler in
 * between. Silence within TLS and authentication is played in packages/node/test/pg/PgWalSender.test.ts.
 */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { assert, describe } from "@effect/vitest"
import { withLogicalStream } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { type Duration, Effect, Fiber, Redacted, Schedule } from "effect"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { failureOf, follow, logicalOptions, walSender } from "../support/Follow.ts"
import { makeIntruder } from "../support/Intruder.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const never = { reconnect: Schedule.recurs(0) }
const soon = { reconnect: Schedule.spaced("50 millis") }

/** The words in which each step between `connect` and streaming asks. */
const steps = ["SET client_encoding", "IDENTIFY_SYSTEM", "wal_sender_timeout", "pg_publication", "START_REPLICATION"]

/** A peer that says nothing more once it has heard these words. */
const silentAfter = (target: { readonly host: string; readonly port: number }, words: string) => {
  let isSilent = false
  return makeIntruder(target, {
    toServer: (bytes) => {
      isSilent ||= bytes.includes(words)
      return isSilent ? "silence" : bytes
    }
  })
}

describe("a peer that falls silent", () => {
  for (const words of steps) {
    fault("N6", `where it is asked ${words} is given up after the connect timeout, and its socket closed`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const { open, port } = yield* silentAfter(server, words)
        const run = (connectTimeout: Duration.Input) =>
          withLogicalStream({ ...logicalOptions(workspace), ...never, timing: { closeTimeout: "50 millis" } }, () =>
            Effect.succeed(undefined)
          ).pipe(Effect.provide(walSender(workspace, { port, connectTimeout })))
        const error = yield* Effect.flip(run("400 millis")).pipe(Effect.timeout(patience))
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "TimedOut", isRetryable: true })
        yield* eventually(Effect.sync(() => open() === 0))
        // And at once when it is interrupted.
        const fiber = yield* Effect.forkChild(run(patience), { startImmediately: true })
        yield* eventually(Effect.sync(() => open() === 1))
        yield* Fiber.interrupt(fiber)
        yield* eventually(Effect.sync(() => open() === 0))
      })
    )
  }

  fault("N6", "is tried again, and streams once it speaks", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const silent = yield* silentAfter(server, "IDENTIFY_SYSTEM")
      let { port } = silent
      // Read by the driver as it is made for each attempt: the name leads elsewhere by then.
      const options = { ...logicalOptions(workspace), ...soon }
      const attempts = Effect.suspend(() => {
        const layer = walSender(workspace, { port, connectTimeout: "1 second" })
        port = server.port
        return withLogicalStream({ ...options, ...never }, () => Effect.succeed(undefined)).pipe(Effect.provide(layer))
      })
      yield* Effect.forkScoped(Effect.retry(attempts, { while: (error) => error.isRetryable, ...options }))
      yield* eventually(workspace.isStreaming(), { what: "the stream began" })
    })
  )
})

describe("a server without room", () => {
  fault("N7", "for one more walsender (53300) is tried until there is", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make({
        ...PostgresVersion.serverOptions(),
        settings: { max_wal_senders: 1, autovacuum: "off" }
      })
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      const slot = `${workspace.slot}_2`
      const refused = yield* Effect.flip(
        withLogicalStream({ ...logicalOptions(workspace), ...never, slot }, () => Effect.succeed(undefined)).pipe(
          Effect.provide(walSender(workspace))
        )
      )
      assert.deepInclude(refused, { _tag: "ServerError", sqlState: "53300", stage: "Connect", isRetryable: true })
      const second = yield* Effect.forkChild(follow(workspace, { options: { ...soon, slot } }), {
        startImmediately: true
      })
      yield* eventually(
        Effect.map(server.log, (log) => log.split(/exceeds "?max_wal_senders/).length > 3),
        { what: "it was refused some times" }
      )
      yield* first.stop
      const stream = yield* Fiber.join(second)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 1)
    })
  )

  fault("N7", "that is starting up (57P03) is tried until it has", () =>
    Effect.gen(function* () {
      // It is starting up for as long as it waits for its archive, here for a file: only a recovery asks there.
      const server = yield* PgServer.make({
        ...PostgresVersion.serverOptions(),
        settings: { restore_command: "while [ ! -e gate ]; do sleep 0.05; done; false" }
      })
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { options: soon })
      yield* server.stop()
      const file = (name: string) => Effect.promise(() => writeFile(join(server.dataDirectory, name), ""))
      yield* file("recovery.signal")
      const starting = yield* Effect.forkScoped(server.start)
      const refused = yield* eventually(
        Effect.map(failureOf(workspace, never), (error) =>
          error._tag === "ServerError" && error.sqlState === "57P03" ? error : undefined
        )
      )
      assert.isTrue(refused.isRetryable)
      assert.include(refused.message, "starting up")
      yield* file("gate")
      yield* Fiber.join(starting)
      yield* eventually(workspace.isStreaming(), { what: "streaming again" })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 1)
    })
  )

  fault("N7", "that is stopping (57P03), gone, and there again is tried until it is", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: table })
      // A smart stop waits for sessions to leave, and admits no others.
      const session = yield* Effect.scoped(
        Effect.gen(function* () {
          yield* workspace.session
          const stopping = yield* Effect.forkDetach(server.stop("smart"), { startImmediately: true })
          const refused = yield* eventually(
            Effect.map(failureOf(workspace, never), (error) => (error._tag === "ServerError" ? error : undefined))
          )
          assert.deepInclude(refused, { _tag: "ServerError", sqlState: "57P03", isRetryable: true })
          return stopping
        })
      )
      yield* Fiber.join(session)
      const stream = yield* Effect.forkChild(follow(workspace, { options: soon }), { startImmediately: true })
      yield* server.start
      const streaming = yield* Fiber.join(stream)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* streaming.saw("Insert", 1)
    })
  )
})

describe("a pooler in between", () => {
  /** What a startup message asks for, without `replication`: as poolers do that are told to ignore it. */
  const withoutReplication = (bytes: Buffer): Buffer => {
    const parameter = Buffer.from("replication\0database\0")
    const at = bytes.indexOf(parameter)
    if (at < 0) return bytes
    const shorter = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + parameter.length)])
    shorter.writeInt32BE(shorter.length, 0)
    return shorter
  }

  fault("N12", "that drops the wish for replication is told by name, not by a syntax error", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const { port } = yield* makeIntruder(server, { toServer: withoutReplication })
      const url = Redacted.make(workspace.url())
      const error = yield* withLogicalStream(logicalOptions(workspace), () => Effect.succeed(undefined)).pipe(
        Effect.provide(walSender(workspace, { url, port, sslmode: "disable" })),
        Effect.flip,
        Effect.timeout(patience)
      )
      assert.deepInclude(error, { _tag: "InvalidOption", option: "host", isRetryable: false })
      assert.include((error as { remedy: string }).remedy, "connect to PostgreSQL directly")
    })
  )
})
