/**
 * Starts the servers that all tests of a project share: PostgreSQL of the project's version, and with version 15 also
 * the one with wal2json, where this machine has it. A test that stops or kills its server makes one of its own.
 */
import { existsSync } from "node:fs"
import { PgServer, type PgServerOptions } from "@replicant/node/testing"
import { Effect, Exit, Scope } from "effect"
import type { TestProject } from "vitest/node"
import * as PostgresVersion from "./PostgresVersion.ts"

/** What a worker needs to know of a shared server. */
export interface SharedServer {
  /** `18.4` */
  readonly version: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
}

declare module "vitest" {
  interface ProvidedContext {
    readonly servers: {
      readonly postgres: SharedServer | "missing"
      readonly wal2json: SharedServer | "missing" | "elsewhere"
    }
  }
}

/** Where Debian's packages postgresql-NN and postgresql-NN-wal2json put their programs. */
const wal2jsonBin = ["15", "16", "17", "18"]
  .map((major) => `/usr/lib/postgresql/${major}`)
  .find((prefix) => existsSync(`${prefix}/bin/postgres`) && existsSync(`${prefix}/lib/wal2json.so`))

const wal2jsonProject = 15

/**
 * Slots and walsenders for all files at once; tests of the timeout set it for their own session. No autovacuum: 14
 * sends its transactions too, as empty ones, and a test that counts would count them.
 */
const settings = {
  autovacuum: "off",
  max_connections: 200,
  max_wal_senders: 60,
  max_replication_slots: 60,
  max_prepared_transactions: 40
}

/** From 18 on origins are counted apart from slots, and there are ten: each copy has one, for as long as its target. */
const settingsOf = (version: number): PgServerOptions["settings"] =>
  version >= 18 ? { ...settings, max_active_replication_origins: 60 } : settings

const start = (options: PgServerOptions, version: number) =>
  Effect.map(
    PgServer.make({ ...options, settings: settingsOf(version) }),
    ({ host, password, port, user, version }): SharedServer => ({ host, password, port, user, version })
  )

const startPostgres = (project: string) => {
  const version = PostgresVersion.ofProject(project)
  return PostgresVersion.isInstalled(version)
    ? start(PostgresVersion.serverOptions(version), version)
    : Effect.succeed("missing" as const)
}

/** Once a run is enough: it does not depend on the version of the other server. */
const startWal2Json = (project: string) => {
  if (PostgresVersion.ofProject(project) !== wal2jsonProject) return Effect.succeed("elsewhere" as const)
  if (wal2jsonBin === undefined) return Effect.succeed("missing" as const)
  const version = Number.parseInt(wal2jsonBin.split("/").at(-1)!, 10)
  return start({ binaries: `${wal2jsonBin}/bin`, outputPlugins: ["wal2json"] }, version)
}

export const setup = async (project: TestProject): Promise<() => Promise<void>> => {
  const scope = await Effect.runPromise(Scope.make())
  const servers = Effect.all(
    {
      postgres: startPostgres(project.name),
      wal2json: startWal2Json(project.name)
    },
    { concurrency: "unbounded" }
  )
  project.provide("servers", await Effect.runPromise(Scope.provide(servers, scope)))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
