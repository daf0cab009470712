/**
 * A second server on a copy of the first one's data: an old copy, or a standby that follows. Made without
 * pg_basebackup, which the npm packages lack, by copying the directory of a stopped server.
 *
 * Both servers must be made with `auth: "trust"`: the copy has the roles of the first, and so not the password that the
 * second was given.
 */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { WalSender } from "@replicant/core/driver"
import { PgWalSender } from "@replicant/node"
import { PgServer, type PgServerFailed, type PgServerOptions, type PgServerShape } from "@replicant/node/testing"
import { Effect, Fiber, Layer, Redacted, type Scope } from "effect"
import { eventually } from "./eventually.ts"
import * as PostgresVersion from "./PostgresVersion.ts"

const run = promisify(execFile)

const shell = (script: string, ...args: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.promise(() => run("/bin/sh", ["-ec", script, "copy", ...args]))

/** A server of the tests' version that trusts everybody on this machine, to be copied. */
export const trustingServer = (
  settings: PgServerOptions["settings"] = {}
): Effect.Effect<PgServerShape, PgServerFailed, Scope.Scope> =>
  PgServer.make({ ...PostgresVersion.serverOptions(), auth: "trust", settings })

/**
 * A stopped server with the data of another, which is stopped for the copy and started again. What the copy keeps of
 * the slots is the caller's to say: pg_basebackup keeps none.
 */
export const copyOf = Effect.fnUntraced(function* (
  server: PgServerShape,
  options: { readonly slots: "kept" | "left out" }
): Effect.fn.Return<PgServerShape, PgServerFailed, Scope.Scope> {
  const copy = yield* trustingServer()
  yield* copy.stop("immediate")
  yield* server.stop("fast")
  yield* shell('rm -rf "$2"; cp -a "$1" "$2"; rm -f "$2/postmaster.pid"', server.dataDirectory, copy.dataDirectory)
  if (options.slots === "left out") yield* shell('rm -rf "$1"/pg_replslot/*', copy.dataDirectory)
  yield* server.start
  return copy
})

export interface Standby {
  readonly server: PgServerShape
  /** Makes it a primary, and waits until it is one. */
  readonly promote: Effect.Effect<void, unknown>
}

/** Adds a line to a stopped server's postgresql.conf. */
export const appendSetting = (server: PgServerShape, line: string): Effect.Effect<void> =>
  shell('printf "%s\\n" "$2" >> "$1/postgresql.conf"', server.dataDirectory, line)

/** What a standby is told beside whom it follows. */
export interface StandbyOptions {
  /** Its own `synchronized_standby_slots`: none; or the primary's, as where one configuration serves both. */
  readonly synchronizedStandbySlots?: string | undefined
}

/** A standby that streams from `primary`, once it accepts queries. It has none of the primary's slots. */
export const standbyOf = Effect.fnUntraced(function* (
  primary: PgServerShape,
  { synchronizedStandbySlots = "" }: StandbyOptions = {}
): Effect.fn.Return<Standby, unknown, Scope.Scope> {
  const server = yield* copyOf(primary, { slots: "left out" })
  yield* primary.query("SELECT pg_create_physical_replication_slot('standby', true)")
  const settings = [
    `primary_conninfo = 'host=127.0.0.1 port=${primary.port} user=${primary.user} dbname=postgres'`,
    "primary_slot_name = 'standby'",
    "hot_standby_feedback = on",
    ...(PostgresVersion.current() >= 17
      ? ["sync_replication_slots = on", `synchronized_standby_slots = '${synchronizedStandbySlots}'`]
      : [])
  ]
  yield* shell(
    'printf "%s\\n" "$2" >> "$1/postgresql.conf"; cp -p "$1/PG_VERSION" "$1/standby.signal"',
    server.dataDirectory,
    settings.join("\n")
  )
  // It counts as started once it is a primary; before that it is asked.
  const started = yield* Effect.forkScoped(server.start)
  yield* eventually(server.query("SELECT 1"), { what: "the standby accepts queries" })
  return { server, promote: Effect.andThen(server.query("SELECT pg_promote()"), Fiber.join(started)) }
})

/** A primary goes to its next timeline, as a standby that has all its slots would: restarted as one, and promoted. */
export const failOver = Effect.fnUntraced(function* (server: PgServerShape): Effect.fn.Return<void, unknown> {
  yield* server.stop("fast")
  yield* shell('cp -p "$1/PG_VERSION" "$1/standby.signal"', server.dataDirectory)
  const started = yield* Effect.forkChild(server.start)
  yield* eventually(server.query("SELECT 1"), { what: "the standby accepts queries" })
  yield* server.query("SELECT pg_promote()")
  yield* Fiber.join(started)
  yield* server.query("CHECKPOINT")
})

/** A host name that leads to one server, and from some moment on to another. */
export const movingWalSender = (url: string) => {
  let current = url
  const at = <A, E, R>(open: (walSender: WalSender["Service"]) => Effect.Effect<A, E, R>) =>
    Effect.suspend(() =>
      Effect.flatMap(WalSender, open).pipe(
        Effect.provide(PgWalSender.layer({ url: Redacted.make(current) }), { local: true })
      )
    ) as never
  return {
    layer: Layer.succeed(
      WalSender,
      WalSender.of({ connect: at(({ connect }) => connect), openSession: at(({ openSession }) => openSession) })
    ),
    moveTo: (next: string): Effect.Effect<void> =>
      Effect.sync(() => {
        current = next
      })
  }
}
