/** A MariaDB of a test's own, over Debian's programs: a directory, a socket in it, and nobody else. */
import { spawn, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir, userInfo } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { eventually } from "./eventually.ts"

/** Of its packages `mariadb-server-core` and `mariadb-client-core`. */
const programs = ["/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db", "/usr/bin/my_print_defaults"] as const

/** Whether this machine has it. */
export const hasMariaDb = programs.every((path) => existsSync(path))

export interface MariaDb {
  readonly socketPath: string
  readonly database: string
}

/** Starts one, with an empty database. The scope stops it and removes all of it. */
export const startMariaDb = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "maria-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  const data = join(directory, "data")
  const socketPath = join(directory, "socket")
  const user = `--user=${userInfo().username}`
  const common = ["--no-defaults", `--datadir=${data}`, user]
  const made = spawnSync(programs[1], [...common, "--auth-root-authentication-method=normal", "--skip-test-db"])
  if (made.status !== 0) return yield* Effect.die(new Error(`mariadb-install-db: ${made.stderr}`))
  const first = join(directory, "first.sql")
  writeFileSync(first, "CREATE DATABASE IF NOT EXISTS ledger;\n")
  const options = [...common, "--skip-networking", `--socket=${socketPath}`, `--init-file=${first}`]
  yield* Effect.acquireRelease(
    Effect.sync(() => spawn(programs[0], options, { stdio: "ignore" })),
    (server) =>
      Effect.callback<void>((resume) => {
        if (server.exitCode !== null || server.signalCode !== null) return resume(Effect.void)
        server.once("exit", () => resume(Effect.void))
        server.kill("SIGKILL")
      })
  )
  yield* eventually(
    Effect.sync(() => existsSync(socketPath)),
    { what: "MariaDB listens" }
  )
  return { socketPath, database: "ledger" } satisfies MariaDb
})
