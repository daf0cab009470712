/**
 * Starts the servers that all tests share, once per run: PostgreSQL 18, and where this machine has it one with wal2json.
 * A test that stops or kills its server makes one of its own.
 */
import { existsSync } from "node:fs"
import { PgServer, type PgServerOptions } from "@replicant/node/testing"
import { Effect, Exit, Scope } from "effect"
import type { TestProject } from "vitest/node"

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
    readonly servers: { readonly postgres18: SharedServer; readonly wal2json: SharedServer | undefined }
  }
}

/** Where Debian's packages postgresql-NN and postgresql-NN-wal2json put their programs. */
const wal2jsonBin = ["15", "16", "17", "18"]
  .map((major) => `/usr/lib/postgresql/${major}`)
  .find((prefix) => existsSync(`${prefix}/bin/postgres`) && existsSync(`${prefix}/lib/wal2json.so`))

/** Slots and walsenders for all files at once; tests of the timeout set it for their own session. */
const settings = { max_connections: 200, max_wal_senders: 60, max_replication_slots: 60 }

const start = (options: PgServerOptions) =>
  Effect.map(
    PgServer.make({ ...options, settings }),
    ({ host, password, port, user, version }): SharedServer => ({ host, password, port, user, version })
  )

export const setup = async (project: TestProject): Promise<() => Promise<void>> => {
  const scope = await Effect.runPromise(Scope.make())
  const servers = Effect.all(
    {
      postgres18: start({}),
      wal2json:
        wal2jsonBin === undefined
          ? Effect.undefined
          : start({ binaries: `${wal2jsonBin}/bin`, outputPlugins: ["wal2json"] })
    },
    { concurrency: "unbounded" }
  )
  project.provide("servers", await Effect.runPromise(Scope.provide(servers, scope)))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
