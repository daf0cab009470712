/**
 * The lists wal2json takes as text: tables, message prefixes, origins. What it cannot take is refused here.
 *
 * Source: `string_to_SelectTable`, `parse_table_identifier` and `split_string_to_list` in wal2json.c.
 */
import * as Result from "effect/Result"
import { objectName } from "../protocol/ReplicationCommand.ts"
import { InvalidOption } from "../ReplicationError.ts"

/**
 * Names tables, by their raw, unquoted and case-sensitive names: one table, all tables of a schema, or a table of this
 * name in any schema.
 */
export type TableFilter =
  | { readonly schema: string; readonly table?: string | undefined }
  | { readonly schema?: undefined; readonly table: string }

/** What the plugin reads as something else than part of a name: `isspace` in C, separators, the wildcard, quotes. */
const special = /[ \t\n\v\f\r',.*\\]/g

const escapeName = (name: string): string => name.replace(special, "\\$&")

const refuse = (option: string, problem: string, remedy?: string) =>
  Result.fail(new InvalidOption({ option, problem, remedy }))

/**
 * The text of `filter-tables` and `add-tables`: `schema.table`, `schema.*` or `*.table`, parted by commas, with a
 * backslash before each special character of a name.
 *
 * @example
 * formatTableFilters("filterTables", [{ schema: "public", table: "Foo bar" }, { table: "log" }])
 * // => Result.succeed("public.Foo\\ bar,*.log")
 */
export const formatTableFilters = (
  option: string,
  filters: ReadonlyArray<TableFilter>
): Result.Result<string, InvalidOption> => {
  const patterns: Array<string> = []
  for (const { schema, table } of filters) {
    if (schema === undefined && table === undefined) return refuse(option, "names neither a schema nor a table")
    for (const name of [schema, table]) {
      const checked = name === undefined ? Result.succeed("*") : objectName(option, name)
      if (Result.isFailure(checked)) return Result.fail(checked.failure)
    }
    patterns.push(`${schema === undefined ? "*" : escapeName(schema)}.${table === undefined ? "*" : escapeName(table)}`)
  }
  return nonEmptyList(option, patterns)
}

/**
 * The text of `filter-msg-prefixes` and `add-msg-prefixes`. Unlike with tables the plugin knows no way to write a
 * prefix that holds a space or a comma, and takes none that is empty.
 */
export const formatPrefixes = (
  option: string,
  prefixes: ReadonlyArray<string>
): Result.Result<string, InvalidOption> =>
  prefixes.some((prefix) => prefix === "" || /[ \t\n\v\f\r,\\\0]/.test(prefix))
    ? refuse(
        option,
        "wal2json cannot name a prefix that is empty or holds white space, a comma, a backslash or a zero byte",
        "choose by prefix in the handler"
      )
    : nonEmptyList(option, prefixes)

/** The text of `filter-origins`: `pg_replication_origin.roident`, 1 to 65535. */
export const formatOrigins = (option: string, origins: ReadonlyArray<number>): Result.Result<string, InvalidOption> =>
  origins.every((origin) => Number.isInteger(origin) && origin >= 1 && origin <= 65_535)
    ? nonEmptyList(option, origins.map(String))
    : refuse(option, "an origin is a roident of pg_replication_origin, 1 to 65535")

/** wal2json takes an empty list for none or for all, as the option has it; whoever gives one means neither. */
export const nonEmptyList = (option: string, items: ReadonlyArray<string>): Result.Result<string, InvalidOption> =>
  items.length === 0 ? refuse(option, "the list is empty", "leave the option out") : Result.succeed(items.join(","))
