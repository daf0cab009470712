/** The parts that cures are made of: settings, rights, and amounts in words. Pure. */
import { quoteIdentifier, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { Cure } from "./Finding.ts"

const alterSystemRight = (name: string): string =>
  `a superuser, or from PostgreSQL 15 on GRANT ALTER SYSTEM ON PARAMETER ${name}`

/** A setting of the server that counts once its configuration is read again; of a list, its elements. */
export const reloaded = (name: string, value: string | ReadonlyArray<string>): Cure => ({
  sql: [`ALTER SYSTEM SET ${name} = ${[value].flat().map(quoteLiteral).join(", ") || "''"}`, "SELECT pg_reload_conf()"],
  advice: "at a provider's: in its parameter group, or among its server parameters",
  right: alterSystemRight(name)
})

/** A setting that counts once the server is started again. */
export const restarted = (name: string, value: string): Cure => ({
  sql: [`ALTER SYSTEM SET ${name} = ${quoteLiteral(value)}`],
  advice: "then restart the server; at a provider's: in its parameter group, or among its server parameters",
  right: alterSystemRight(name)
})

export const role = (name: string): string => quoteIdentifier(name)

const units = ["B", "kB", "MB", "GB", "TB", "PB"] as const

/** Bytes in PostgreSQL's units of 1024. */
export const bytes = (count: number): string => {
  let value = count
  let unit = 0
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[unit]}`
}

const spans = [
  [86_400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"]
] as const

/** A time in the largest unit that it fills: `3 hours`. */
export const duration = (seconds: number): string => {
  const [size, unit] = spans.find(([size]) => seconds >= size) ?? [1, "second"]
  const count = Math.floor(seconds / size)
  return `${count} ${unit}${count === 1 ? "" : "s"}`
}

/** So many of them. */
export const plural = (count: number, what: string, many = `${what}s`): string =>
  `${count.toLocaleString("en-US")} ${count === 1 ? what : many}`

/** `a, b and 3 more`. */
export const some = (names: ReadonlyArray<string>, most = 5): string =>
  names.length > most ? `${names.slice(0, most).join(", ")} and ${names.length - most} more` : names.join(", ")
