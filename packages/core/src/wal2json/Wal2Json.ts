/**
 * The wal2json output plugin: its options, and what it makes of the WAL. Not part of PostgreSQL; where it is not
 * installed creating a slot fails, and so it does from the minor releases of August 2026 on, until an administrator
 * names it in `output_plugin_libraries`.
 *
 * Prefer pgoutput where there is a choice. What comes out is the same `Change`s, but wal2json tells less:
 *
 * - NaN and infinity of `numeric`, `real` and `double precision` come as null, unless `numericDataTypesAsString`.
 * - An unchanged TOAST column is left out, by name too. `Update.unchanged` lists it where the stream has named it
 *   before (an insert into the table, or REPLICA IDENTITY FULL); else it is only absent from the row.
 * - The replica identity is not told. A relation's key is what the last update or delete identified its row by, before
 *   the first of these the primary key. An old row is `Full` where it holds all columns that are known.
 * - An update or delete of a table without key and identity never comes: the server sends a warning in its place (`no
 *   tuple identifier for UPDATE`).
 * - A truncate does not tell CASCADE and RESTART IDENTITY: both are false.
 * - A message's content ends at its first zero byte.
 * - Nothing is converted: a database with another encoding than UTF8 fails with `DecodeError`, or worse, decodes as
 *   other text. Use wal2json with `server_encoding` UTF8 only.
 * - A type whose name must be quoted and is not the last thing in it (`"My schema".mood`, `"a""b"`) breaks the JSON,
 *   and so the stream; `includeTypes: false` avoids it.
 *
 * Positions, as seen on PostgreSQL 15.18 with wal2json 2.5: format 2 writes `lsn` and `nextlsn` on begin and commit.
 * They are pgoutput's `commit_lsn` and `end_lsn`, the start of the commit record and the byte after it: `nextlsn` is
 * what is acknowledged. A message's `lsn` is the end of its record, what `pg_logical_emit_message` returned, whether
 * transactional or not. A slot confirmed at either went on with what follows. Format 1 has `nextlsn` on the transaction
 * and nothing else: see `Format1Options`.
 *
 * Source: https://github.com/eulerto/wal2json
 */
import * as Result from "effect/Result"
import type { OutputPlugin, PluginOptions } from "../change/OutputPlugin.ts"
import type { InvalidOption } from "../ReplicationError.ts"
import type { Types } from "../values/TypeDecoder.ts"
import { formatOrigins, formatPrefixes, formatTableFilters, nonEmptyList, type TableFilter } from "./TableFilter.ts"
import { Wal2JsonDecoder } from "./Wal2JsonDecoder.ts"

/** A kind of change that wal2json may be told to send. */
export type Wal2JsonAction = "insert" | "update" | "delete" | "truncate"

interface CommonOptions {
  /**
   * Whether a transaction that was replayed here from elsewhere says so by an `Origin`. Its `name` is wal2json's
   * number, `pg_replication_origin.roident`, and its `originLsn` is `0/0`, not told. Default false.
   */
  readonly includeOrigin?: boolean | undefined
  /**
   * Whether types are named. Default true. Without names a domain decodes as text, types made by users are told by OID
   * only (`TypeDecoders.byOid`), and a change of modifiers (`varchar(20)` to `varchar(30)`) goes unnoticed; but
   * messages are shorter, and no name breaks the JSON.
   */
  readonly includeTypes?: boolean | undefined
  /** Whether numbers come as strings, and with them NaN and infinity. Needs wal2json 2.6; 2.5 answers 22023. */
  readonly numericDataTypesAsString?: boolean | undefined
  /** Tables whose changes are left out. */
  readonly filterTables?: ReadonlyArray<TableFilter> | undefined
  /** Tables whose changes are sent, and no others'. `filterTables` goes before. */
  readonly addTables?: ReadonlyArray<TableFilter> | undefined
  /** Messages with one of these prefixes are left out. No prefix may hold white space, comma or backslash. */
  readonly filterMsgPrefixes?: ReadonlyArray<string> | undefined
  /** Messages with one of these prefixes are sent, and no others. */
  readonly addMsgPrefixes?: ReadonlyArray<string> | undefined
  /** Origins (`pg_replication_origin.roident`) whose transactions are left out. */
  readonly filterOrigins?: ReadonlyArray<number> | undefined
  /** How values are decoded. */
  readonly types?: Types | undefined
}

/** One JSON object a change. */
export interface Format2Options extends CommonOptions {
  readonly formatVersion?: 2 | undefined
  /** The changes sent; all by default. */
  readonly actions?: ReadonlyArray<Wal2JsonAction> | undefined
}

/**
 * One JSON object a transaction: the server and we hold all of it at once, and beyond 1 GB it fails for ever. For
 * servers whose plugin is too old for format 2.
 *
 * It sends no truncates. It does not tell where the commit record starts: `Begin.commitLsn` and `Commit.commitLsn` are
 * the end of the transaction, and so is the `lsn` of its messages. It does not tell where a message outside any
 * transaction stands: its `lsn` is the end of what was delivered before, so that acknowledging it is safe, and it comes
 * again after a reconnect until something later is acknowledged. Content that is not UTF-8 fails the stream. An old row
 * lacks its null columns, is then `Key`, and is left out where the rest is as before; a relation's key is its primary
 * key, under the default replica identity only. So a `changeId` of format 1 names changes of transactions alone for sure: a
 * `Commit` sorts before its changes, and messages outside transactions may share one.
 */
export interface Format1Options extends CommonOptions {
  readonly formatVersion: 1
  /** The changes sent; all that there are by default. */
  readonly actions?: ReadonlyArray<Exclude<Wal2JsonAction, "truncate">> | undefined
}

/**
 * What may be chosen of wal2json's options. All that decoding rests on is always set (`include-lsn`, `include-xids`,
 * `include-timestamp`, `include-pk`, `include-type-oids`, `include-transaction`; with types
 * `include-domain-data-type`), and what would break it is never sent (`write-in-chunks`, `pretty-print`,
 * `include-schemas`).
 */
export type Wal2JsonOptions = Format1Options | Format2Options

/** Every filter with the name the plugin has for it, in the form it takes. */
const filters = (options: Wal2JsonOptions): ReadonlyArray<readonly [string, Result.Result<string, InvalidOption>]> => {
  const { actions, addMsgPrefixes, addTables, filterMsgPrefixes, filterOrigins, filterTables } = options
  const set: Array<readonly [string, Result.Result<string, InvalidOption>]> = []
  if (filterTables !== undefined) set.push(["filter-tables", formatTableFilters("filterTables", filterTables)])
  if (addTables !== undefined) set.push(["add-tables", formatTableFilters("addTables", addTables)])
  if (filterMsgPrefixes !== undefined) {
    set.push(["filter-msg-prefixes", formatPrefixes("filterMsgPrefixes", filterMsgPrefixes)])
  }
  if (addMsgPrefixes !== undefined) set.push(["add-msg-prefixes", formatPrefixes("addMsgPrefixes", addMsgPrefixes)])
  if (filterOrigins !== undefined) set.push(["filter-origins", formatOrigins("filterOrigins", filterOrigins)])
  if (actions !== undefined) set.push(["actions", nonEmptyList("actions", actions)])
  return set
}

const pluginOptions = (options: Wal2JsonOptions): Result.Result<PluginOptions, InvalidOption> => {
  const formatVersion = options.formatVersion ?? 2
  const text: Array<readonly [string, string]> = [
    ["format-version", String(formatVersion)],
    ["include-lsn", "true"],
    ["include-xids", "true"],
    ["include-timestamp", "true"],
    ["include-pk", "true"],
    ["include-type-oids", "true"],
    ["include-types", String(options.includeTypes ?? true)],
    ["include-origin", String(options.includeOrigin ?? false)]
  ]
  if (formatVersion === 2) text.push(["include-transaction", "true"])
  if (options.includeTypes ?? true) text.push(["include-domain-data-type", "true"])
  if (options.numericDataTypesAsString === true) text.push(["numeric-data-types-as-string", "true"])
  for (const [name, formatted] of filters(options)) {
    if (Result.isFailure(formatted)) return Result.fail(formatted.failure)
    text.push([name, formatted.success])
  }
  return Result.succeed(text)
}

/**
 * wal2json as an {@link OutputPlugin}. What the plugin could not take is an `InvalidOption` when streaming is to start.
 *
 * @example
 * const plugin = Wal2Json.make({
 *   addTables: [{ schema: "public", table: "orders" }],
 *   actions: ["insert", "update"]
 * })
 */
export const make = (options: Wal2JsonOptions = {}): OutputPlugin => ({
  name: "wal2json",
  tells: {
    publications: [],
    messages: options.addMsgPrefixes === undefined && options.filterMsgPrefixes === undefined,
    inProgress: false,
    prepared: false,
    copiedRows: false,
    endAhead: options.formatVersion === 1
  },
  get plain() {
    return this
  },
  options: () => pluginOptions(options),
  makeDecoder: () =>
    new Wal2JsonDecoder({
      formatVersion: options.formatVersion ?? 2,
      types: options.types ?? {},
      includeOrigin: options.includeOrigin ?? false
    })
})
