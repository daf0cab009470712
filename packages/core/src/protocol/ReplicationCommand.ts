/**
 * The text of replication commands, with exact quoting, gated by the server's version and never by trial.
 *
 * What PostgreSQL would refuse, or silently cut short, is refused here: a name of 64 bytes becomes another slot's name.
 *
 * Source: src/backend/replication/repl_gram.y and repl_scanner.l: keywords in upper case; literals double their own quote,
 * and a backslash is a character like any other. An identifier that holds a double quote cannot be said: a doubled one is a
 * syntax error to the server.
 */
import * as Result from "effect/Result"
import * as Lsn from "../Lsn.ts"
import { InvalidOption, UnsupportedByServer } from "../ReplicationError.ts"

/** Options of START_REPLICATION: names as they are, values yet to be quoted. */
export type CommandOptions = ReadonlyArray<readonly [name: string, value: string]>

/**
 * A double-quoted identifier. The caller has refused zero bytes.
 *
 * @example
 * quoteIdentifier('say "hi"') // => '"say ""hi"""'
 */
export const quoteIdentifier = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** A table's name in SQL: `"schema"."name"`. */
export const qualifiedName = ({ name, schema }: { readonly schema: string; readonly name: string }): string =>
  `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`

/**
 * A quoted literal. Backslashes are escaped the way SQL takes them whatever `standard_conforming_strings` says; a
 * replication command takes them as they are, see {@link quoteCommandLiteral}.
 *
 * @example
 * quoteLiteral("it's") // => "'it''s'"
 */
export const quoteLiteral = (value: string): string => {
  const quoted = `'${value.replaceAll("'", "''")}'`
  return value.includes("\\") ? ` E${quoted.replaceAll("\\", "\\\\")}` : quoted
}

/** A literal in a replication command, whose scanner knows no escapes. */
const quoteCommandLiteral = (value: string): string => `'${value.replaceAll("'", "''")}'`

const invalid = (option: string, problem: string, remedy?: string) =>
  Result.fail(new InvalidOption({ option, problem, remedy }))

const byteLength = (text: string): number => new TextEncoder().encode(text).length

/**
 * A slot name that PostgreSQL takes as it is: 1 to 63 of lower-case letters, digits and underscores.
 *
 * Source: `ReplicationSlotValidateName` in src/backend/replication/slot.c. `pg_conflict_detection` is reserved from
 * PostgreSQL 19.
 */
export const slotName = (name: string): Result.Result<string, InvalidOption> => {
  if (name === "pg_conflict_detection") return invalid("slot", "is a name that PostgreSQL keeps for itself")
  return /^[a-z0-9_]{1,63}$/.test(name)
    ? Result.succeed(name)
    : invalid("slot", "is not a slot name", "use 1 to 63 of lower-case letters, digits and underscores")
}

/** Text that reaches the server as it is: a zero byte would end it, and half a surrogate pair be sent as U+FFFD. */
const plainText = (option: string, text: string): Result.Result<string, InvalidOption> => {
  if (text.includes("\0")) return invalid(option, "holds a zero byte")
  return text.isWellFormed() ? Result.succeed(text) : invalid(option, "holds half a surrogate pair")
}

/** Any other name: 1 to 63 bytes of {@link plainText}. Longer ones PostgreSQL cuts, and so confuses. */
export const objectName = (option: string, name: string): Result.Result<string, InvalidOption> => {
  const checked = plainText(option, name)
  if (Result.isFailure(checked)) return checked
  const length = byteLength(name)
  if (length === 0) return invalid(option, "is empty")
  return length > 63 ? invalid(option, `has ${length} bytes, PostgreSQL keeps 63`) : Result.succeed(name)
}

/**
 * The value of `publication_names`: identifiers, quoted, so that `MyPub` does not mean `mypub`, and separated by commas.
 * Refuses an empty list, which PostgreSQL 18 accepts and then sends nothing.
 *
 * @example
 * publicationNames(["orders", "My Pub"]) // => Result.succeed('"orders","My Pub"')
 *
 * Source: `SplitIdentifierString` in src/backend/utils/adt/varlena.c.
 */
export const publicationNames = (names: ReadonlyArray<string>): Result.Result<string, InvalidOption> => {
  if (names.length === 0) return invalid("publications", "is empty", "name at least one publication")
  const quoted: Array<string> = []
  for (const name of names) {
    const checked = objectName("publications", name)
    if (Result.isFailure(checked)) return Result.fail(checked.failure)
    quoted.push(quoteIdentifier(name))
  }
  return Result.succeed(quoted.join(","))
}

/** Asks which cluster answers. */
export const identifySystemCommand = "IDENTIFY_SYSTEM"

/** A slot to be made. https://www.postgresql.org/docs/current/protocol-replication.html */
export interface CreateReplicationSlot {
  readonly slot: string
  readonly plugin: string
  /** Dropped by the server with its connection. */
  readonly temporary?: boolean | undefined
  /**
   * `export` makes a snapshot that other sessions can import until the next command on this connection; `use` makes it
   * this transaction's, and must be the first command after `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`; `nothing`
   * makes none.
   */
  readonly snapshot?: "export" | "use" | "nothing" | undefined
  /** Decode PREPARE TRANSACTION when it happens. PostgreSQL 15. */
  readonly twoPhase?: boolean | undefined
  /** Keep the slot on standbys too. PostgreSQL 17; not for a temporary slot. */
  readonly failover?: boolean | undefined
}

const unsupported = (feature: string, serverVersion: number, neededVersion: number) =>
  Result.fail(new UnsupportedByServer({ feature, serverVersion, neededVersion }))

/** The words that PostgreSQL 14 has for what later ones say in parentheses. */
const oldSnapshotWords = { export: "EXPORT_SNAPSHOT", use: "USE_SNAPSHOT", nothing: "NOEXPORT_SNAPSHOT" }

/**
 * `CREATE_REPLICATION_SLOT`, in the form that this server takes: options in parentheses from PostgreSQL 15. The grammar
 * of 14 has no TWO_PHASE, though the SQL function of 14 has.
 *
 * @example
 * createReplicationSlotCommand({ slot: "orders", plugin: "pgoutput" }, 180_004)
 * // => Result.succeed(`CREATE_REPLICATION_SLOT "orders" LOGICAL "pgoutput" (SNAPSHOT 'nothing')`)
 */
export const createReplicationSlotCommand = (
  options: CreateReplicationSlot,
  serverVersion: number
): Result.Result<string, InvalidOption | UnsupportedByServer> =>
  Result.gen(function* () {
    const { failover = false, snapshot = "nothing", temporary = false, twoPhase = false } = options
    const slot = yield* slotName(options.slot)
    const plugin = yield* objectName("plugin", options.plugin)
    if (twoPhase && serverVersion < 150_000) yield* unsupported("TWO_PHASE", serverVersion, 150_000)
    if (failover && serverVersion < 170_000) yield* unsupported("FAILOVER", serverVersion, 170_000)
    if (failover && temporary) yield* invalid("failover", "does not go with a temporary slot")
    const head =
      `CREATE_REPLICATION_SLOT ${quoteIdentifier(slot)}${temporary ? " TEMPORARY" : ""}` +
      ` LOGICAL ${quoteIdentifier(plugin)}`
    if (serverVersion < 150_000) return `${head} ${oldSnapshotWords[snapshot]}`
    const words = [`SNAPSHOT '${snapshot}'`, ...(twoPhase ? ["TWO_PHASE"] : []), ...(failover ? ["FAILOVER"] : [])]
    return `${head} (${words.join(", ")})`
  })

/** A slot to be dropped. */
export interface DropReplicationSlot {
  readonly slot: string
  /** Waits until nobody streams from it. */
  readonly wait?: boolean | undefined
}

/** `DROP_REPLICATION_SLOT`. */
export const dropReplicationSlotCommand = (options: DropReplicationSlot): Result.Result<string, InvalidOption> =>
  Result.map(
    slotName(options.slot),
    (slot) => `DROP_REPLICATION_SLOT ${quoteIdentifier(slot)}${options.wait === true ? " WAIT" : ""}`
  )

/** What to set; `undefined` leaves a property as it is. */
export interface AlterReplicationSlot {
  readonly slot: string
  /** PostgreSQL 17. */
  readonly failover?: boolean | undefined
  /** PostgreSQL 18. */
  readonly twoPhase?: boolean | undefined
}

/** `ALTER_REPLICATION_SLOT`, PostgreSQL 17. Refuses to alter nothing, which the grammar does not allow. */
export const alterReplicationSlotCommand = (
  options: AlterReplicationSlot,
  serverVersion: number
): Result.Result<string, InvalidOption | UnsupportedByServer> =>
  Result.gen(function* () {
    const slot = yield* slotName(options.slot)
    const words: Array<string> = []
    if (serverVersion < 170_000) yield* unsupported("ALTER_REPLICATION_SLOT", serverVersion, 170_000)
    if (options.failover !== undefined) words.push(`FAILOVER ${options.failover}`)
    if (options.twoPhase !== undefined) {
      if (serverVersion < 180_000) yield* unsupported("TWO_PHASE of an existing slot", serverVersion, 180_000)
      words.push(`TWO_PHASE ${options.twoPhase}`)
    }
    if (words.length === 0) yield* invalid("slot", "has nothing to alter")
    return `ALTER_REPLICATION_SLOT ${quoteIdentifier(slot)} (${words.join(", ")})`
  })

/** A stream to be started, from a slot, at a position, with the options of its plugin. */
export interface StartReplication {
  readonly slot: string
  /** `0/0` for wherever the slot stands. One ahead of the slot skips commits without a word. */
  readonly startLsn: Lsn.Lsn
  readonly options: CommandOptions
}

/**
 * `START_REPLICATION SLOT … LOGICAL …`.
 *
 * @example
 * startReplicationCommand({ slot: "orders", startLsn: Lsn.zero, options: [["proto_version", "1"]] })
 * // => Result.succeed(`START_REPLICATION SLOT "orders" LOGICAL 0/0 ("proto_version" '1')`)
 */
export const startReplicationCommand = (start: StartReplication): Result.Result<string, InvalidOption> =>
  Result.gen(function* () {
    const slot = yield* slotName(start.slot)
    const options: Array<string> = []
    for (const [name, value] of start.options) {
      yield* objectName("option name", name)
      yield* plainText(name, value)
      options.push(`${quoteIdentifier(name)} ${quoteCommandLiteral(value)}`)
    }
    const list = options.length === 0 ? "" : ` (${options.join(", ")})`
    return `START_REPLICATION SLOT ${quoteIdentifier(slot)} LOGICAL ${Lsn.format(start.startLsn)}${list}`
  })
