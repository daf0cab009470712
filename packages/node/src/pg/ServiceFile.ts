/**
 * libpq's service files: parameters of connections by a name, `[shop]` and then `host=db` a line. Read once, when the
 * environment is: what is said elsewhere beats them, but not the PG variables.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-pgservice.html
 */
import { readFile } from "node:fs/promises"
import { homedir, platform } from "node:os"
import { join } from "node:path"
import { InvalidOption } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Keywords } from "./ConnectionUrl.ts"

const refuse = (problem: string, remedy?: string) => new InvalidOption({ option: "service", problem, remedy })

/**
 * What a file says of a service; `undefined` where it has none of that name. Nothing it fails with quotes a line, which may
 * be a password.
 */
export const findService = (
  text: string,
  service: string,
  path: string
): Result.Result<Keywords | undefined, InvalidOption> => {
  let found: Record<string, string> | undefined
  for (const [index, whole] of text.split("\n").entries()) {
    const line = whole.trim()
    if (line === "" || line.startsWith("#")) continue
    if (line.startsWith("[")) {
      if (found !== undefined) break
      if (line === `[${service}]`) found = Object.create(null) as Record<string, string>
      continue
    }
    if (found === undefined) continue
    const at = `line ${index + 1} of ${path}`
    if (line.startsWith("ldap")) return Result.fail(refuse(`${at} asks an LDAP server, which is not done here`))
    const sign = line.indexOf("=")
    if (sign < 1) return Result.fail(refuse(`${at} is not of the form name=value`))
    const name = line.slice(0, sign)
    if (name === "service" || name === "servicefile") return Result.fail(refuse(`${at} names another service`))
    // The first of a name counts.
    found[name] ??= line.slice(sign + 1)
  }
  return Result.succeed(found)
}

/** What the environment says of where services are. Empty is not said. */
export interface ServicePlaces {
  readonly PGSERVICEFILE: string
  readonly PGSYSCONFDIR: string
}

const userFile = (): string | undefined => {
  if (platform() !== "win32") return join(homedir(), ".pg_service.conf")
  const { APPDATA } = process.env
  return APPDATA === undefined ? undefined : join(APPDATA, "postgresql", ".pg_service.conf")
}

const readText = (path: string): Effect.Effect<string | undefined> =>
  Effect.promise((signal) => readFile(path, { encoding: "utf8", signal }).catch(() => undefined))

/** The parameters of a service: of the user's file, or else of the system's, which only `PGSYSCONFDIR` tells where to find. */
export const readService = Effect.fnUntraced(function* (
  service: string,
  { PGSERVICEFILE, PGSYSCONFDIR }: ServicePlaces
): Effect.fn.Return<Keywords, InvalidOption> {
  const own = PGSERVICEFILE === "" ? userFile() : PGSERVICEFILE
  const system = PGSYSCONFDIR === "" ? undefined : join(PGSYSCONFDIR, "pg_service.conf")
  const paths = [own, system].filter((path) => path !== undefined)
  for (const path of paths) {
    const text = yield* readText(path)
    if (text === undefined) {
      if (path === PGSERVICEFILE) return yield* refuse(`${path} cannot be read`, "check PGSERVICEFILE")
      continue
    }
    const found = yield* Effect.fromResult(findService(text, service, path))
    if (found !== undefined) return found
  }
  return yield* refuse(
    `${JSON.stringify(service)} is in none of ${paths.join(", ")}`,
    "check PGSERVICE, PGSERVICEFILE and PGSYSCONFDIR"
  )
})
