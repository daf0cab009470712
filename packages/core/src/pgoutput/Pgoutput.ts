/**
 * PostgreSQL's own output plugin: which options it is given, by server version, and the decoder of what it says.
 *
 * Protocol version 1, in text format or binary: a transaction comes whole, after its commit.
 */
import * as Result from "effect/Result"
import type { OutputPlugin, PluginOptions } from "../change/OutputPlugin.ts"
import { publicationNames } from "../protocol/ReplicationCommand.ts"
import { type InvalidOption, UnsupportedByServer } from "../ReplicationError.ts"
import type { TypeDecoders } from "../values/TypeDecoder.ts"
import { PgoutputDecoder } from "./PgoutputDecoder.ts"

/** What pgoutput is asked for: options of START_REPLICATION, and how values are decoded. */
export interface Options {
  /** Names of publications, as they are in `pg_publication.pubname`: unquoted, in their own case. */
  readonly publications: ReadonlyArray<string>
  /**
   * Whether `pg_logical_emit_message` is heard: PostgreSQL 14 and later. By default it is, where the server can.
   */
  readonly messages?: boolean | undefined
  /**
   * `none` leaves out what was itself replicated to the server from elsewhere, `any` sends all: PostgreSQL 16 and later.
   * By default nothing is asked, which is `any`.
   */
  readonly origin?: "any" | "none" | undefined
  /** What becomes of column values, see {@link TypeDecoders}. */
  readonly types?: TypeDecoders | undefined
  /**
   * How the server sends values: `text`, the default, or `binary`, PostgreSQL 14 and later. Rows are the same in either,
   * and decoders of your own are given text in either.
   *
   * Binary spares the server some printing and us some parsing. In return it knows fewer types: a table with a column of
   * a composite type, a range of your own, an extension's type, `money`, `tsquery`, `regclass` or its kin fails with a
   * `DecodeError` before its first row. Enums must be named in `enums`.
   */
  readonly format?: "text" | "binary" | undefined
  /**
   * With `format: "binary"`: types of your own whose binary format is their text, as `schema.name` or `name`. Enums, for
   * on the wire nothing tells them from composite types; `citext` too. Serves their arrays as well.
   */
  readonly enums?: ReadonlyArray<string> | undefined
}

/** The plugin came with PostgreSQL 10, messages and binary format with 14, the choice of origin with 16. */
const since = { pgoutput: 100_000, messages: 140_000, binary: 140_000, origin: 160_000 } as const

const pluginOptions = (
  { format, messages, origin, publications }: Options,
  serverVersion: number
): Result.Result<PluginOptions, InvalidOption | UnsupportedByServer> => {
  const refuse = (feature: string, neededVersion: number) =>
    Result.fail(new UnsupportedByServer({ feature, serverVersion, neededVersion }))
  if (serverVersion < since.pgoutput) return refuse("the plugin pgoutput", since.pgoutput)
  const names = publicationNames(publications)
  if (Result.isFailure(names)) return Result.fail(names.failure)
  const options: Array<readonly [name: string, value: string]> = [
    ["proto_version", "1"],
    ["publication_names", names.success]
  ]
  if (messages ?? serverVersion >= since.messages) {
    if (serverVersion < since.messages) return refuse("pgoutput's option messages", since.messages)
    options.push(["messages", "true"])
  }
  if (format === "binary") {
    if (serverVersion < since.binary) return refuse("pgoutput's option binary", since.binary)
    options.push(["binary", "true"])
  }
  if (origin !== undefined) {
    if (serverVersion < since.origin) return refuse("pgoutput's option origin", since.origin)
    options.push(["origin", origin])
  }
  return Result.succeed(options)
}

/**
 * The plugin for a stream of one or more publications.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html#PROTOCOL-LOGICAL-REPLICATION-PARAMS
 *
 * @example
 * Pgoutput.make({ publications: ["orders"], types: { byName: new Map([["timestamptz", timestampDate]]) } })
 */
export const make = (options: Options): OutputPlugin => ({
  name: "pgoutput",
  publications: options.publications,
  options: (serverVersion) => pluginOptions(options, serverVersion),
  // Slices come with each reader; the decoder needs none of its own.
  makeDecoder: () =>
    new PgoutputDecoder({
      decoders: options.types ?? {},
      binaryEnums: options.format === "binary" ? new Set(options.enums) : undefined
    })
})
