/**
 * Every way to fail. Each class has a `_tag` to catch it by, `isRetryable`, and a `remedy`: the statement or setting that
 * mends it, where there is one. What can be wrong with a slot is in `SlotError.ts`, what the server says in `ServerError.ts`.
 *
 * No error holds a row value, a password or a connection string.
 */
import * as Schema from "effect/Schema"
import { errorId, errorJson, logText } from "./ErrorForm.ts"
import * as Lsn from "./Lsn.ts"
import { type ServerError, Stage } from "./ServerError.ts"
import type {
  SlotAheadOfCheckpoint,
  SlotAlreadyExists,
  SlotCreationBlocked,
  SlotInUse,
  SlotInvalidated,
  SlotMismatch,
  SlotNotFound
} from "./SlotError.ts"

export { errorJson, logText } from "./ErrorForm.ts"
export * from "./ServerError.ts"
export * from "./SlotError.ts"

/**
 * No connection, or none any more. `reason` tells how:
 * `Refused` nobody listens; `HostNotFound` the name does not resolve; `TimedOut` the handshake took too long;
 * `Closed` the peer ended it, with or without a word; `Reset` it broke; `Tls` TLS could not be agreed or the certificate
 * did not hold (never retried: the next attempt would see the same).
 */
export class ConnectionError extends Schema.TaggedError<ConnectionError>(errorId("ConnectionError"))(
  "ConnectionError",
  {
    reason: Schema.Literals(["Refused", "HostNotFound", "TimedOut", "Closed", "Reset", "Tls"]),
    detail: Schema.String,
    remedy: Schema.optional(Schema.String)
  }
) {
  get isRetryable(): boolean {
    return this.reason !== "Tls"
  }
  override get message(): string {
    return this.detail
  }
}

/**
 * The walsender said nothing for `receiverTimeout` milliseconds while we were reading, not even when asked; and it is not
 * known to be at work. `walSender` is what another connection was told of it: `Waiting` for its client, and so would have
 * answered; `Gone`; or `Unknown`, as nobody could be asked.
 */
export class WalReceiverTimeout extends Schema.TaggedError<WalReceiverTimeout>(errorId("WalReceiverTimeout"))(
  "WalReceiverTimeout",
  {
    receiverTimeout: Schema.Number,
    walSender: Schema.optional(Schema.Literals(["Waiting", "Gone", "Unknown"]))
  }
) {
  get remedy(): string {
    return this.walSender === "Waiting" || this.walSender === "Gone"
      ? "nothing, if this is rare; else look for what drops silent connections on the way: a firewall, NAT, a balancer"
      : "let the role connect once more (max_wal_senders, its CONNECTION LIMIT), so that a walsender at work is told from a dead one; or raise receiverTimeout beyond what the server decodes at a time"
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `the walsender was silent for ${this.receiverTimeout} ms and did not answer a ping${standings[this.walSender ?? "Unknown"]}`
  }
}

const standings = {
  Waiting: ", though it waits for us: the connection is broken",
  Gone: ", and it is gone",
  Unknown: "; what it is doing could not be asked"
}

/**
 * Wrong password, no entry in pg_hba.conf, role without LOGIN (28000, 28P01); or what the server asks for is refused here,
 * and then there is no `sqlState`.
 */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>(errorId("AuthenticationFailed"))(
  "AuthenticationFailed",
  {
    sqlState: Schema.String,
    detail: Schema.String,
    remedy: Schema.optional(Schema.String),
    /** The next attempt may bring another password. Said by the driver, which asks for one at each attempt. */
    mayPass: Schema.optional(Schema.Boolean)
  }
) {
  get isRetryable(): boolean {
    return this.mayPass === true
  }
  override get message(): string {
    return this.detail
  }
}

/** The role may not do this (42501): mostly, it lacks REPLICATION. */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>(errorId("PermissionDenied"))(
  "PermissionDenied",
  {
    stage: Stage,
    detail: Schema.String,
    remedy: Schema.optional(Schema.String)
  }
) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return this.detail
  }
}

/** `wal_level` is below `logical`. Changing it needs a restart of the server. */
export class LogicalDecodingDisabled extends Schema.TaggedError<LogicalDecodingDisabled>(
  errorId("LogicalDecodingDisabled")
)("LogicalDecodingDisabled", { walLevel: Schema.String }) {
  readonly remedy = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `logical decoding needs wal_level = logical, the server has ${this.walLevel}`
  }
}

const mostNamed = 10

const quotedNames = (names: ReadonlyArray<string>): string => names.map((name) => `"${name}"`).join(", ")

const availableText = (names: ReadonlyArray<string> | undefined): string => {
  if (names === undefined) return ""
  if (names.length === 0) return ", which has none"
  const more = names.length > mostNamed ? ` and ${names.length - mostNamed} more` : ""
  return `, which has ${logText(quotedNames(names.slice(0, mostNamed)))}${more}`
}

/**
 * Asked of `pg_publication` before streaming, and told by the walsender's warning later: from PostgreSQL 18 a missing
 * publication is otherwise silence, and what is committed meanwhile never comes.
 */
export class PublicationNotFound extends Schema.TaggedError<PublicationNotFound>(errorId("PublicationNotFound"))(
  "PublicationNotFound",
  {
    publications: Schema.Array(Schema.String),
    /** Those that are there, where that was asked. */
    available: Schema.optional(Schema.Array(Schema.String))
  }
) {
  get remedy(): string {
    const [first = "name"] = this.publications
    return `CREATE PUBLICATION "${first.replaceAll('"', '""')}" FOR TABLE ...`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `no publication ${quotedNames(this.publications)} in this database${availableText(this.available)}`
  }
}

/** The publication exists but does not publish what was asked. */
export class PublicationMismatch extends Schema.TaggedError<PublicationMismatch>(errorId("PublicationMismatch"))(
  "PublicationMismatch",
  { publication: Schema.String, problem: Schema.String, remedy: Schema.optional(Schema.String) }
) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `publication "${this.publication}" ${this.problem}`
  }
}

/** A name or option that PostgreSQL would refuse, or cut short; refused here before anything is sent. */
export class InvalidOption extends Schema.TaggedError<InvalidOption>(errorId("InvalidOption"))("InvalidOption", {
  option: Schema.String,
  problem: Schema.String,
  remedy: Schema.optional(Schema.String)
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.option}: ${this.problem}`
  }
}

/** The server is too old for what was asked, which is known from its version and never tried. */
export class UnsupportedByServer extends Schema.TaggedError<UnsupportedByServer>(errorId("UnsupportedByServer"))(
  "UnsupportedByServer",
  {
    feature: Schema.String,
    /** `server_version_num`. */
    serverVersion: Schema.Number,
    /** The first `server_version_num` that can. */
    neededVersion: Schema.Number
  }
) {
  get remedy(): string {
    return `PostgreSQL ${Math.floor(this.neededVersion / 10_000)} or later, or do without`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.feature} needs PostgreSQL ${Math.floor(this.neededVersion / 10_000)}, the server is ${Math.floor(this.serverVersion / 10_000)}`
  }
}

/**
 * Not the cluster we streamed from, or one whose WAL lies behind what we have done, or has another history from before
 * that on: another server behind the name.
 */
export class SystemMismatch extends Schema.TaggedError<SystemMismatch>(errorId("SystemMismatch"))("SystemMismatch", {
  property: Schema.Literals(["systemId", "timeline", "position"]),
  expected: Schema.String,
  found: Schema.String
}) {
  readonly remedy = "check which server the host name leads to; to accept it, start a new consumer with a new snapshot"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    if (this.property === "systemId") {
      return `another cluster answers: system identifier ${this.found}, was ${this.expected}`
    }
    return this.property === "timeline"
      ? `the server's timeline ${this.found} left timeline ${this.expected} before what is done already`
      : `the server's WAL ends at ${this.found}, before ${this.expected} which is done already`
  }
}

/**
 * A standby that has not replayed what we have done already, as one that was restarted lets clients in before it has. It
 * catches up, by itself, if it follows the same primary.
 */
export class StandbyBehind extends Schema.TaggedError<StandbyBehind>(errorId("StandbyBehind"))("StandbyBehind", {
  /** Everything before it is done. */
  expected: Lsn.Lsn,
  /** How far the standby is. */
  found: Lsn.Lsn
}) {
  readonly remedy =
    "wait while it replays: SELECT pg_last_wal_replay_lsn() on the standby; if that stands still, see its log and pg_stat_wal_receiver"
  get isRetryable(): boolean {
    return true
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const found = Lsn.format(this.found)
    return this.found < this.expected
      ? `the standby has replayed up to ${found}, and ${Lsn.format(this.expected)} is done already`
      : `the server is a standby still, at ${found}, and is waited for until it is promoted`
  }
}

/** Bytes we do not understand, or that contradict what came before. Nothing after them can be trusted. */
export class DecodeError extends Schema.TaggedError<DecodeError>(errorId("DecodeError"))("DecodeError", {
  problem: Schema.String,
  /** Byte offset within the message or read. */
  offset: Schema.Number,
  /** WAL position of the message, once known. */
  lsn: Schema.optional(Lsn.Lsn),
  remedy: Schema.optional(Schema.String)
}) {
  /** What a decoder threw. Anything else is a mistake in the program, and is thrown on. */
  static caught(thrown: unknown): DecodeError {
    if (thrown instanceof DecodeError) return thrown
    throw thrown
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const at = this.lsn === undefined ? "" : ` of the message at LSN ${Lsn.format(this.lsn)}`
    // Some problems name a table or a column.
    return `${logText(this.problem)}, at byte ${this.offset}${at}`
  }
}

/** A transaction outgrew what `transactions` may gather in memory. Nothing of it is acknowledged. */
export class TransactionTooLarge extends Schema.TaggedError<TransactionTooLarge>(errorId("TransactionTooLarge"))(
  "TransactionTooLarge",
  {
    xid: Schema.Number,
    commitLsn: Lsn.Lsn,
    /** Bytes of WAL messages received of it so far. */
    bytes: Schema.Number,
    maxBytes: Schema.Number
  }
) {
  readonly remedy = "raise maxTransactionBytes, or consume `changes`, which holds no transaction in memory"
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    return `transaction ${this.xid} at LSN ${Lsn.format(this.commitLsn)} exceeds ${this.maxBytes} bytes`
  }
}

/** A transaction in progress could not be put aside, or not be read back. Nothing of it is acknowledged. */
export class SpillFailed extends Schema.TaggedError<SpillFailed>(errorId("SpillFailed"))("SpillFailed", {
  during: Schema.Literals(["open", "write", "read"]),
  problem: Schema.String
}) {
  readonly remedy = "give TransactionSpill.layer a directory with room for the largest transaction, or do not stream"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `cannot ${this.during} the file of a transaction in progress: ${this.problem}`
  }
}

/** Every way replication fails. A handler's own errors come beside it, untouched. */
export type ReplicationError =
  | ConnectionError
  | WalReceiverTimeout
  | AuthenticationFailed
  | PermissionDenied
  | LogicalDecodingDisabled
  | SlotInUse
  | SlotNotFound
  | SlotAlreadyExists
  | SlotInvalidated
  | SlotAheadOfCheckpoint
  | SlotCreationBlocked
  | SlotMismatch
  | PublicationNotFound
  | PublicationMismatch
  | InvalidOption
  | UnsupportedByServer
  | SystemMismatch
  | StandbyBehind
  | DecodeError
  | TransactionTooLarge
  | SpillFailed
  | ServerError
