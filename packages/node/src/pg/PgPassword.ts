/**
 * Where a password comes from when none was given: libpq's password file. And from a file of one's own, as secrets are
 * mounted. Both are read anew at each attempt, since passwords change while a stream goes on.
 *
 * Nothing is quoted: what is wrong with a file is told by its path.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-pgpass.html
 */
import { type FileHandle, open } from "node:fs/promises"
import { homedir, platform } from "node:os"
import { join } from "node:path"
import { InvalidOption, type ReplicationError } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

/** `~/.pgpass`, and on Windows `%APPDATA%\postgresql\pgpass.conf`. `undefined` where there is no such place. */
export const defaultPassfile = (): string | undefined => {
  if (platform() !== "win32") return join(homedir(), ".pgpass")
  const { APPDATA } = process.env
  return APPDATA === undefined ? undefined : join(APPDATA, "postgresql", "pgpass.conf")
}

const codeOf = (thrown: unknown): string =>
  thrown instanceof Error && "code" in thrown ? String(thrown.code) : "an unknown error"

/** What PostgreSQL cannot be sent: in its messages NUL ends a password. */
const unsendable = (password: string): string | undefined => {
  if (password.includes("\0")) return "must not contain a NUL character"
  return password.isWellFormed() ? undefined : "holds half a surrogate pair"
}

/**
 * A provider that reads a file with a password and nothing else, such as a mounted secret, at each attempt. One line end
 * after it does not count. Fails with `InvalidOption` when the file cannot be read.
 *
 * @example
 * PgWalSender.layer({ host: "db", user: "replicant", password: PgConfig.passwordFromFile("/run/secrets/replicant") })
 */
export const passwordFromFile = (path: string): Effect.Effect<Redacted.Redacted, InvalidOption> =>
  Effect.tryPromise({
    try: async (signal) => {
      await using file = await open(path)
      return Redacted.make((await file.readFile({ encoding: "utf8", signal })).replace(/\r?\n$/, ""))
    },
    catch: (thrown) => new InvalidOption({ option: "password", problem: `${path} cannot be read: ${codeOf(thrown)}` })
  })

/** As much of a password file as is read; libpq has no limit. */
const maxPassfileBytes = 1024 * 1024

/** What is found of a password file: its text, or why it is not looked into. No file is no text. */
type Found = { readonly text: string } | { readonly ignored: string } | undefined

const look = async (file: FileHandle): Promise<Found> => {
  const status = await file.stat()
  if (!status.isFile()) return { ignored: "is not a plain file" }
  if (platform() !== "win32" && (status.mode & 0o077) !== 0) {
    return { ignored: "can be read by others: its permissions should be 0600 or less" }
  }
  if (status.size > maxPassfileBytes) return { ignored: "is larger than 1 MB" }
  return { text: await file.readFile("utf8") }
}

/** What cannot be opened is passed over without a word, as libpq does. */
const readPassfile = (path: string): Effect.Effect<Found> =>
  Effect.promise(async () => {
    try {
      await using file = await open(path)
      return await look(file)
    } catch {
      return undefined
    }
  })

/** Cuts a line at colons. A backslash protects the character after it, and what is protected is told apart from `*`. */
const fieldsOf = (line: string): ReadonlyArray<{ readonly text: string; readonly isWildcard: boolean }> => {
  const pieces = line.match(/\\[\s\S]?|[^\\:]+|:/g) ?? []
  const fields = [{ text: "", raw: "" }]
  for (const piece of pieces) {
    // Only the first four colons separate: the password is all the rest.
    if (piece === ":" && fields.length < 5) fields.push({ text: "", raw: "" })
    else {
      const field = fields.at(-1)!
      field.text += piece.startsWith("\\") ? piece.slice(1) : piece
      field.raw += piece
    }
  }
  return fields.map(({ raw, text }) => ({ text, isWildcard: raw === "*" }))
}

/**
 * The password of the first line that fits, or `undefined`. Lines are `host:port:database:user:password`; `*` fits
 * anything, a `#` begins a comment.
 *
 * @example
 * findPassword("db:*:shop:me:s\\:cret", ["db", "5432", "shop", "me"]) // => "s:cret"
 */
export const findPassword = (text: string, wanted: ReadonlyArray<string>): string | undefined => {
  for (const line of text.split(/\r?\n/)) {
    if (line === "" || line.startsWith("#")) continue
    const fields = fieldsOf(line)
    if (fields.length < 5) continue
    if (wanted.every((value, index) => fields[index]!.isWildcard || fields[index]!.text === value)) {
      return fields[4]!.text
    }
  }
  return undefined
}

/** Where PostgreSQL and Debian put the socket: to the file these are `localhost`. */
const usualSocketDirectories = ["/tmp", "/var/run/postgresql"]

/** For whom a password is asked, and where: what of a `PgConfig` says so. */
export interface PasswordQuestion {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  /** `undefined` when none was given. */
  readonly password: Effect.Effect<Redacted.Redacted | undefined, ReplicationError>
  /** Where to look for a password when none was given. */
  readonly passfile: string | undefined
}

const askPassfile = Effect.fnUntraced(function* (config: PasswordQuestion, path: string) {
  const found = yield* readPassfile(path)
  if (found === undefined) return undefined
  if ("ignored" in found)
    return yield* Effect.as(Effect.logWarning(`password file ${path} ${found.ignored}`), undefined)
  const host = usualSocketDirectories.includes(config.host) ? "localhost" : config.host
  const password = findPassword(found.text, [host, String(config.port), config.database, config.user])
  return password === undefined || password === "" ? undefined : Redacted.make(password)
})

/** The password for this attempt; `undefined` when none is known: then the server must not ask for one. */
export const askPassword = Effect.fnUntraced(function* (
  config: PasswordQuestion
): Effect.fn.Return<Redacted.Redacted | undefined, ReplicationError> {
  const given = yield* config.password
  if (given === undefined)
    return config.passfile === undefined ? undefined : yield* askPassfile(config, config.passfile)
  if (Redacted.value(given) === "") return undefined
  const problem = unsendable(Redacted.value(given))
  if (problem !== undefined) return yield* new InvalidOption({ option: "password", problem })
  return given
})
