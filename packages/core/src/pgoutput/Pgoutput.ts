/**
 * PostgreSQL's own output plugin: which options it is given, by server version, and the decoder of what it says.
 *
 * Protocol version 1 unless more is asked for: a transaction comes whole, after its commit. The lowest version that can
 * do what is asked is spoken.
 */
import * as Result from "effect/Result"
import type { OutputPlugin, PluginOptions } from "../change/OutputPlugin.ts"
import { publicationNames } from "../protocol/ReplicationCommand.ts"
import { type InvalidOption, UnsupportedByServer } from "../ReplicationError.ts"
import type { Types } from "../values/TypeDecoder.ts"
import { PgoutputDecoder, type Phases } from "./PgoutputDecoder.ts"
import { RelationCache } from "./RelationCache.ts"
import { StreamingDecoder } from "./StreamingDecoder.ts"

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
  /** What becomes of column values, see {@link Types}. */
  readonly types?: Types | undefined
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
  /**
   * Lets the server send a transaction that outgrows its `logical_decoding_work_mem` while it is in progress, so that it
   * need not spill it, and we have most of it by the time it commits. `on` from PostgreSQL 14; `parallel`, from 16, adds
   * to an abort where and when it was.
   *
   * What is delivered stays as it is: what is in progress is gathered, by a `TransactionSpill` that must be provided, and
   * delivered once it has committed. A stream with `inProgress: "deliver"` delivers it as it comes.
   */
  readonly streaming?: "on" | "parallel" | undefined
  /**
   * Whether PREPARE TRANSACTION is told when it happens: PostgreSQL 15 and later. The transaction then comes at its
   * PREPARE, its `Begin` bearing a gid and `Prepare` closing it, and `CommitPrepared` or `RollbackPrepared` later tells
   * what became of it. Otherwise it comes at its COMMIT PREPARED, like any other.
   *
   * The slot remembers that it was asked for. Source: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
   */
  readonly twoPhase?: boolean | undefined
}

/**
 * The plugin came with PostgreSQL 10; messages, binary format and transactions in progress with 14, two-phase commit with
 * 15, the choice of origin and streaming in parallel with 16.
 */
const since = {
  pgoutput: 100_000,
  messages: 140_000,
  binary: 140_000,
  on: 140_000,
  twoPhase: 150_000,
  origin: 160_000,
  parallel: 160_000
} as const

/** The lowest version of the protocol that has what is asked for. */
const protocolVersion = ({ streaming, twoPhase }: Options): "1" | "2" | "3" | "4" => {
  if (streaming === "parallel") return "4"
  if (twoPhase === true) return "3"
  return streaming === "on" ? "2" : "1"
}

const pluginOptions = (
  wanted: Options,
  serverVersion: number
): Result.Result<PluginOptions, InvalidOption | UnsupportedByServer> => {
  const refuse = (feature: string, neededVersion: number) =>
    Result.fail(new UnsupportedByServer({ feature, serverVersion, neededVersion }))
  const { format, messages, origin, publications, streaming, twoPhase } = wanted
  if (serverVersion < since.pgoutput) return refuse("the plugin pgoutput", since.pgoutput)
  const names = publicationNames(publications)
  if (Result.isFailure(names)) return Result.fail(names.failure)
  const options: Array<readonly [name: string, value: string]> = [
    ["proto_version", protocolVersion(wanted)],
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
  if (streaming !== undefined) {
    if (serverVersion < since[streaming]) return refuse(`pgoutput's option streaming '${streaming}'`, since[streaming])
    options.push(["streaming", streaming])
  }
  if (twoPhase === true) {
    if (serverVersion < since.twoPhase) return refuse("pgoutput's option two_phase", since.twoPhase)
    options.push(["two_phase", "true"])
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
 * Pgoutput.make({ publications: ["orders"], types: { byName: new Map([["timestamptz", TypeDecoder.timestampDate]]) } })
 */
export const make = (options: Options): OutputPlugin => asked(options, options.twoPhase === true ? "two" : "one")

/** `phases` is what is understood: a slot that was once asked for two may send them to who asks for one. */
const asked = (options: Options, phases: Phases): OutputPlugin => ({
  name: "pgoutput",
  tells: {
    publications: options.publications,
    messages: options.messages ?? true,
    inProgress: options.streaming !== undefined,
    prepared: options.twoPhase === true,
    copiedRows: true,
    endAhead: false
  },
  get plain() {
    return asked({ ...options, streaming: undefined, twoPhase: undefined }, phases)
  },
  options: (serverVersion) => pluginOptions(options, serverVersion),
  makeDecoder: (slices, mode = "gather") => {
    const formats = {
      decoders: options.types ?? {},
      binaryEnums: options.format === "binary" ? new Set(options.enums) : undefined
    }
    return options.streaming === undefined
      ? new PgoutputDecoder(new RelationCache(formats), phases)
      : new StreamingDecoder(formats, { slices, mode, phases })
  }
})
