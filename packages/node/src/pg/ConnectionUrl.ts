/**
 * `postgresql://user@host:port/database?keyword=value` -> the keywords of libpq, as text.
 *
 * It reads the URL as libpq does rather than as a browser does, so that a password with `#` or `?` in it, an empty host
 * and a socket directory mean here what they mean to `psql`. It judges no value: that is `PgConfig`'s. Nothing it says
 * quotes the URL, since a password may stand anywhere in one that is malformed.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 */
import { InvalidOption } from "@replicant/core"
import * as Result from "effect/Result"

/** What both a URL and the environment can say, by libpq's names. Absent means not said. */
export interface Keywords {
  readonly [keyword: string]: string
}

const malformed = (problem: string, remedy?: string): Result.Result<never, InvalidOption> =>
  Result.fail(new InvalidOption({ option: "url", problem, remedy }))

const encodeIt = "percent-encode @ : / ? # % and spaces in the user, password and database"

/** Percent-decodes strictly: half an escape, bytes that are no UTF-8 and NUL are refused. `+` stays a plus. */
const decode = (text: string): string | undefined => {
  try {
    const decoded = decodeURIComponent(text)
    return decoded.includes("\0") ? undefined : decoded
  } catch {
    return undefined
  }
}

/** Cuts `text` at the first of `marks`, which belongs to neither part. */
const cut = (text: string, marks: RegExp): readonly [string, string | undefined] => {
  const at = text.search(marks)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

interface Authority {
  readonly user?: string | undefined
  readonly password?: string | undefined
  /** As many as hosts, separated by commas: an empty one is not said. */
  readonly host: string
  readonly port?: string | undefined
}

const parseServer = (text: string): readonly [host: string, port: string | undefined] | string => {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/s.exec(text)
  if (bracketed !== null) return [bracketed[1]!, bracketed[2]]
  const [host, port] = cut(text, /:/)
  return host.startsWith("[") || port?.includes(":") ? "an IPv6 address must stand in brackets" : [host, port]
}

const parseAuthority = (text: string): Authority | string => {
  const at = text.indexOf("@")
  const [user, password] = at < 0 ? [undefined, undefined] : cut(text.slice(0, at), /:/)
  const list = text.slice(at + 1)
  if (list.includes("@")) return "a second @ before the host: the password is not percent-encoded"
  const hosts: Array<string> = []
  const ports: Array<string> = []
  for (const text of list.split(",")) {
    const server = parseServer(text)
    if (typeof server === "string") return server
    hosts.push(server[0])
    ports.push(server[1] ?? "")
  }
  const port = ports.every((said) => said === "") ? undefined : ports.join(",")
  return { user, password, host: hosts.join(","), port }
}

/** Parameters whose value, cut at an & that is not percent-encoded, goes on in what looks like the next one's name. */
const secret = /password|secret|key/

/** Whether what looks like the name of a parameter cannot be a part of a password. */
const isTellable = (url: string, name: string): boolean => {
  const [, query = ""] = cut(url, /\?/)
  const names = query.split("&").map((parameter) => cut(parameter, /=/)[0])
  const before = names.slice(0, names.indexOf(name))
  return (
    /^[a-z_]+$/.test(name) && names.includes(name) && !query.includes("@") && !before.some((one) => secret.test(one))
  )
}

/**
 * The error for a parameter that nobody knows. It is told by its name, but not where that may be a part of a password: before
 * an @, which then ends the password and not the host's name; behind a secret among the parameters; and where it is not
 * written as parameters are.
 *
 * @example
 * unknownParameter("postgresql://db/shop?sslmod=require", "sslmod") // names it
 * unknownParameter("postgresql://me:1/2?hunter=2@db/shop", "hunter") // does not
 */
export const unknownParameter = (url: string, name: string): InvalidOption =>
  isTellable(url, name)
    ? new InvalidOption({ option: "url", problem: `unknown parameter "${name}"`, remedy: "compare it with libpq's" })
    : new InvalidOption({
        option: "url",
        problem: "it has a parameter that is not known, or a password that is not percent-encoded",
        remedy: encodeIt
      })

/**
 * What a connection URL says, each part percent-decoded. Parameters beat the parts before the `?`, as in libpq.
 *
 * @example
 * parse("postgresql://me:secret@[::1]:5433/shop?sslmode=verify-full")
 * // => { user: "me", password: "secret", host: "::1", port: "5433", dbname: "shop", sslmode: "verify-full" }
 * parse("postgresql://a:5433,b/shop")
 * // => { host: "a,b", port: "5433,", dbname: "shop" }
 */
export const parse = (url: string): Result.Result<Keywords, InvalidOption> => {
  const scheme = /^postgres(?:ql)?:\/\//.exec(url)
  if (scheme === null) return malformed("must begin with postgresql:// or postgres://")
  const rest = url.slice(scheme[0].length)
  // As libpq does: user and password end at the first @ before any slash, and may hold a question mark.
  const userinfo = /^[^@/]*@/.exec(rest)?.[0] ?? ""
  const authorityLength = userinfo.length + cut(rest.slice(userinfo.length), /[/?]/)[0].length
  const authority = parseAuthority(rest.slice(0, authorityLength))
  if (typeof authority === "string") return malformed(authority, encodeIt)
  const [path, query] = cut(rest.slice(authorityLength), /\?/)
  // libpq would take it for the name of a database. What stands before it may be half of a password, and its host the rest.
  if (path.includes("@")) return malformed("an @ behind the host: the password is not percent-encoded", encodeIt)

  const said: Array<readonly [keyword: string, encoded: string | undefined]> = [
    ["user", authority.user],
    ["password", authority.password],
    ["host", authority.host],
    ["port", authority.port],
    ["dbname", path.slice(1)]
  ]
  for (const parameter of query === undefined || query === "" ? [] : query.split("&")) {
    const [encodedName, value] = cut(parameter, /=/)
    const name = decode(encodedName)
    if (name === undefined || value === undefined) {
      return malformed("a parameter is not of the form name=value", encodeIt)
    }
    said.push([name, value])
  }

  const keywords: Record<string, string> = Object.create(null)
  for (const [keyword, encoded] of said) {
    if (encoded === undefined || encoded === "") continue
    const value = decode(encoded)
    if (value === undefined) return malformed("a percent sign does not begin an escaped character", encodeIt)
    keywords[keyword] = value
  }
  return Result.succeed(keywords)
}
