/**
 * The shared servers, as a test sees them: where they are and how to ask them. Never stop or reconfigure one; a test
 * that must, makes a `PgServer` of its own.
 */

import { it } from "@effect/vitest"
import { PgSession } from "@replicant/node/testing"
import { Effect, type Scope } from "effect"
import { inject } from "vitest"
import type { SharedServer } from "./globalSetup.ts"
import * as PostgresVersion from "./PostgresVersion.ts"

/**
 * `postgres` is the project's version of PostgreSQL, from npm; `wal2json` is the system's, 15 by preference, which has
 * the plugin: it runs beside PostgreSQL 15 and no other.
 */
export type ServerName = "postgres" | "wal2json"

export const serverNames: ReadonlyArray<ServerName> = ["postgres", "wal2json"]

export interface Server extends SharedServer {
  readonly name: ServerName
  /** 18 for 18.4. */
  readonly majorVersion: number
  readonly url: (database?: string, user?: string, password?: string) => string
  readonly query: (sql: string, database?: string) => ReturnType<typeof PgSession.query>
}

const fromShared = (name: ServerName, shared: SharedServer): Server => {
  const url: Server["url"] = (database = "postgres", user = shared.user, password = shared.password) =>
    `postgres://${encodeURIComponent(user)}:${password}@${shared.host}:${shared.port}/${encodeURIComponent(database)}`
  return {
    ...shared,
    name,
    majorVersion: Number.parseInt(shared.version, 10),
    url,
    query: (sql, database) => PgSession.query(url(database), sql)
  }
}

/** The server of that name; `undefined` where the machine has none, or another project runs it. */
export const sharedServer = (name: ServerName): Server | undefined => {
  const shared = inject("servers")[name]
  return typeof shared === "string" ? undefined : fromShared(name, shared)
}

/** A limit ends what hangs, and a machine may be this many times as slow as the one that it was chosen on. */
const slowness = 4

/** How long a test may take, and on which versions of PostgreSQL it means something: all, unless told otherwise. */
export interface ServerTestOptions {
  /** Milliseconds. */
  readonly timeout?: number | undefined
  /** The oldest major version that can do this. */
  readonly since?: number | undefined
  /** The newest. */
  readonly until?: number | undefined
}

/** For what does not depend on the version of PostgreSQL: the newest is enough. */
export const once: ServerTestOptions = { since: PostgresVersion.latest }

/**
 * A test against a shared server, in real time; on a version that it is not for there is no such test. Where the
 * machine lacks the server it is skipped and says so, but not under CI, where a test that does not run is one that
 * fails.
 *
 * @example
 * onServer("postgres", "streams an insert", (server) => Effect.gen(function*() {
 *   const workspace = yield* makeWorkspace(server)
 *   yield* workspace.sql("CREATE TABLE orders (id int PRIMARY KEY)")
 * }), { since: 15 })
 */
export const onServer = (
  name: ServerName,
  title: string,
  body: (server: Server) => Effect.Effect<unknown, unknown, Scope.Scope>,
  { since = 0, timeout, until = Number.POSITIVE_INFINITY }: ServerTestOptions = {}
): void => {
  const server = sharedServer(name)
  if (server !== undefined) {
    if (server.majorVersion < since || server.majorVersion > until) return
    it.live(`${title} (PostgreSQL ${server.version})`, () => body(server), timeout && timeout * slowness)
  } else if (inject("servers")[name] === "elsewhere") {
    // Another project runs it.
  } else if (process.env.CI === undefined) {
    it.skip(`${title} (no server "${name}" for ${PostgresVersion.current()} on this machine)`, () => undefined)
  } else {
    it.live(`${title} (${name})`, () =>
      Effect.die(`CI must have the server "${name}" for ${PostgresVersion.current()}`)
    )
  }
}
