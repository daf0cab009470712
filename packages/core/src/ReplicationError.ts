/**
 * Every way to fail. Each class has a `_tag` to catch it by, `isRetryable`, and a `remedy`: the statement or setting that
 * mends it, where there is one.
 *
 * No error holds a row value, a password or a connection string.
 */
import * as Schema from "effect/Schema"
import * as Lsn from "./Lsn.ts"

const id = <const Name extends string>(name: Name): `@replicant/core/${Name}` => `@replicant/core/${name}`

/**
 * Text from elsewhere on one line of a log: whatever a terminal would obey, and whatever turns the direction of reading, is a
 * space. Names, notices and errors are somebody's text, and could otherwise pass for a line of ours.
 *
 * @example
 * logText("gone\u001b[2J\nERROR") // => "gone [2J ERROR"
 */
export const logText = (text: string): string =>
  text.replaceAll(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, " ")

/**
 * An error as JSON takes it: `JSON.stringify` throws at a bigint, which LSNs are. Here they are as PostgreSQL writes them, and
 * the message is told as well.
 */
export const errorJson = (error: Error): { readonly [field: string]: unknown } => ({
  ...Object.fromEntries(
    Object.entries(error).map(([field, value]) => [
      field,
      typeof value === "bigint" ? Lsn.format(value as Lsn.Lsn) : value
    ])
  ),
  message: error.message
})

/** What we were doing when the server answered with an error: SQLSTATEs mean different things at different stages. */
export const Stage = Schema.Literals([
  "Connect",
  "IdentifySystem",
  "Query",
  "CreateSlot",
  "AlterSlot",
  "DropSlot",
  "StartReplication",
  "Streaming"
])
/** One of the stages. */
export type Stage = typeof Stage.Type

/**
 * No connection, or none any more. `reason` tells how:
 * `Refused` nobody listens; `HostNotFound` the name does not resolve; `TimedOut` the handshake took too long;
 * `Closed` the peer ended it, with or without a word; `Reset` it broke; `Tls` TLS could not be agreed or the certificate
 * did not hold (never retried: the next attempt would see the same).
 */
export class ConnectionError extends Schema.TaggedError<ConnectionError>(id("ConnectionError"))("ConnectionError", {
  reason: Schema.Literals(["Refused", "HostNotFound", "TimedOut", "Closed", "Reset", "Tls"]),
  detail: Schema.String,
  remedy: Schema.optional(Schema.String)
}) {
  get isRetryable(): boolean {
    return this.reason !== "Tls"
  }
  override get message(): string {
    return this.detail
  }
}

/** The walsender said nothing for `receiverTimeout` milliseconds while we were reading, not even when asked. */
export class WalReceiverTimeout extends Schema.TaggedError<WalReceiverTimeout>(id("WalReceiverTimeout"))(
  "WalReceiverTimeout",
  { receiverTimeout: Schema.Number }
) {
  readonly remedy = undefined
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `the walsender was silent for ${this.receiverTimeout} ms and did not answer a ping`
  }
}

/**
 * Wrong password, no entry in pg_hba.conf, role without LOGIN (28000, 28P01); or what the server asks for is refused here,
 * and then there is no `sqlState`.
 */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>(id("AuthenticationFailed"))(
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
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>(id("PermissionDenied"))("PermissionDenied", {
  stage: Stage,
  detail: Schema.String,
  remedy: Schema.optional(Schema.String)
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return this.detail
  }
}

/** `wal_level` is below `logical`. Changing it needs a restart of the server. */
export class LogicalDecodingDisabled extends Schema.TaggedError<LogicalDecodingDisabled>(id("LogicalDecodingDisabled"))(
  "LogicalDecodingDisabled",
  { walLevel: Schema.String }
) {
  readonly remedy = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `logical decoding needs wal_level = logical, the server has ${this.walLevel}`
  }
}

/** Another connection streams from the slot (55006). Slots are freed late, so waiting is right. */
export class SlotInUse extends Schema.TaggedError<SlotInUse>(id("SlotInUse"))("SlotInUse", {
  slot: Schema.String,
  activePid: Schema.optional(Schema.Number)
}) {
  get remedy(): string {
    return this.activePid === undefined
      ? "wait, or end the other consumer"
      : `wait, or end the other consumer: SELECT pg_terminate_backend(${this.activePid})`
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const by = this.activePid === undefined ? "" : ` by pid ${this.activePid}`
    return `replication slot "${this.slot}" is in use${by}`
  }
}

/** No slot of that name (42704). A slot that was there before is never made anew: what it stood for is lost. */
export class SlotNotFound extends Schema.TaggedError<SlotNotFound>(id("SlotNotFound"))("SlotNotFound", {
  slot: Schema.String
}) {
  get remedy(): string {
    return `create it: replicant slot create ${this.slot}, or the option createSlot: what was committed before is not in it`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `replication slot "${this.slot}" does not exist`
  }
}

/** CREATE_REPLICATION_SLOT for a name that is taken (42710). */
export class SlotAlreadyExists extends Schema.TaggedError<SlotAlreadyExists>(id("SlotAlreadyExists"))(
  "SlotAlreadyExists",
  { slot: Schema.String }
) {
  get remedy(): string {
    return `use it, or drop it: SELECT pg_drop_replication_slot('${this.slot}')`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `replication slot "${this.slot}" exists already`
  }
}

/** The server gave the slot up (`wal_status = 'lost'`): changes are lost, and only a new snapshot makes up for them. */
export class SlotInvalidated extends Schema.TaggedError<SlotInvalidated>(id("SlotInvalidated"))("SlotInvalidated", {
  slot: Schema.String,
  /** As in `pg_replication_slots.invalidation_reason`; `unknown` before PostgreSQL 17. */
  reason: Schema.String,
  /** What its consumer had confirmed: what was committed from there on is lost. */
  lastLsn: Schema.optional(Lsn.Lsn)
}) {
  get remedy(): string {
    return `changes are lost: drop the slot, create it anew and copy the tables again: SELECT pg_drop_replication_slot('${this.slot}')`
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const from = this.lastLsn === undefined ? "" : `: changes from ${Lsn.format(this.lastLsn)} on are lost`
    return `replication slot "${this.slot}" is invalidated (${logText(this.reason)})${from}`
  }
}

/**
 * The slot stands further on than the consumer's own checkpoint, and no idle position that it stored explains it: what
 * lies between was confirmed by somebody, and never comes. Mostly, the consumer's store was restored from a backup, or
 * another consumer has used the slot.
 */
export class SlotAheadOfCheckpoint extends Schema.TaggedError<SlotAheadOfCheckpoint>(id("SlotAheadOfCheckpoint"))(
  "SlotAheadOfCheckpoint",
  {
    slot: Schema.String,
    /** What the consumer has, its stored idle position included. */
    checkpoint: Lsn.Lsn,
    confirmedFlushLsn: Lsn.Lsn
  }
) {
  readonly remedy =
    'copy the tables again; or, where only this consumer uses the slot and stores no idle positions, slotAheadOfCheckpoint: "accept"'
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    return `replication slot "${this.slot}" stands at ${Lsn.format(this.confirmedFlushLsn)}, beyond the checkpoint ${Lsn.format(this.checkpoint)}: what lies between is lost`
  }
}

/** A transaction that holds up the making of a slot. Its text is the server's, but for its query, which is left out. */
export const BlockingTransaction = Schema.Struct({
  /** The backend; `undefined` for a transaction that is prepared. */
  pid: Schema.optional(Schema.Number),
  /** When it began or was prepared, as PostgreSQL prints it. `undefined`, as the rest, where the role may not see it. */
  since: Schema.optional(Schema.String),
  /** As in `pg_stat_activity`: `idle in transaction` is the one to look for; `prepared`. */
  state: Schema.optional(Schema.String),
  applicationName: Schema.optional(Schema.String),
  /** Of a prepared transaction. */
  gid: Schema.optional(Schema.String)
})
/** A transaction that holds up the making of a slot. */
export type BlockingTransaction = typeof BlockingTransaction.Type

const describeTransaction = ({ applicationName, gid, pid, since, state }: BlockingTransaction): string => {
  const details = [
    ...(since === undefined ? [] : [`since ${since}`]),
    ...(state === undefined ? [] : [state]),
    ...(applicationName === undefined || applicationName === "" ? [] : [`application "${logText(applicationName)}"`])
  ]
  const who = pid === undefined ? `prepared transaction "${logText(gid ?? "")}"` : `pid ${pid}`
  return details.length === 0 ? who : `${who} (${details.join(", ")})`
}

/**
 * A slot begins once every transaction has ended that was running when it was asked for, of all databases; these did not
 * within the time given (55P03). The slot is not made.
 */
export class SlotCreationBlocked extends Schema.TaggedError<SlotCreationBlocked>(id("SlotCreationBlocked"))(
  "SlotCreationBlocked",
  { slot: Schema.String, transactions: Schema.Array(BlockingTransaction) }
) {
  get remedy(): string {
    const [first] = this.transactions
    if (first?.pid !== undefined) return `wait, or end them: SELECT pg_terminate_backend(${first.pid})`
    return first?.gid === undefined
      ? "wait, or end the oldest transactions: SELECT * FROM pg_stat_activity ORDER BY xact_start"
      : `wait, or end them: COMMIT PREPARED or ROLLBACK PREPARED '${logText(first.gid).replaceAll("'", "''")}'`
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const who =
      this.transactions.length === 0 ? "older transactions" : this.transactions.map(describeTransaction).join("; ")
    return `replication slot "${this.slot}" cannot be made while these run: ${who}`
  }
}

/** There is a slot of that name, but not such a one: another database's, another plugin's, or a physical one. */
export class SlotMismatch extends Schema.TaggedError<SlotMismatch>(id("SlotMismatch"))("SlotMismatch", {
  slot: Schema.String,
  property: Schema.Literals(["type", "database", "plugin", "temporary"]),
  expected: Schema.String,
  found: Schema.String
}) {
  readonly remedy = "choose another slot name"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `replication slot "${this.slot}" has ${this.property} ${logText(this.found)}, wanted ${this.expected}`
  }
}

/**
 * Asked of `pg_publication` before streaming, and told by the walsender's warning later: from PostgreSQL 18 a missing
 * publication is otherwise silence, and what is committed meanwhile never comes.
 */
export class PublicationNotFound extends Schema.TaggedError<PublicationNotFound>(id("PublicationNotFound"))(
  "PublicationNotFound",
  { publications: Schema.Array(Schema.String) }
) {
  get remedy(): string {
    const [first = "name"] = this.publications
    return `CREATE PUBLICATION "${first.replaceAll('"', '""')}" FOR TABLE ...`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `no publication ${this.publications.map((name) => `"${name}"`).join(", ")} in this database`
  }
}

/** The publication exists but does not publish what was asked. */
export class PublicationMismatch extends Schema.TaggedError<PublicationMismatch>(id("PublicationMismatch"))(
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
export class InvalidOption extends Schema.TaggedError<InvalidOption>(id("InvalidOption"))("InvalidOption", {
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
export class UnsupportedByServer extends Schema.TaggedError<UnsupportedByServer>(id("UnsupportedByServer"))(
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
export class SystemMismatch extends Schema.TaggedError<SystemMismatch>(id("SystemMismatch"))("SystemMismatch", {
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

/** Bytes we do not understand, or that contradict what came before. Nothing after them can be trusted. */
export class DecodeError extends Schema.TaggedError<DecodeError>(id("DecodeError"))("DecodeError", {
  problem: Schema.String,
  /** Byte offset within the message or read. */
  offset: Schema.Number,
  /** WAL position of the message, once known. */
  lsn: Schema.optional(Lsn.Lsn)
}) {
  readonly remedy = undefined
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
export class TransactionTooLarge extends Schema.TaggedError<TransactionTooLarge>(id("TransactionTooLarge"))(
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
export class SpillFailed extends Schema.TaggedError<SpillFailed>(id("SpillFailed"))("SpillFailed", {
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

/**
 * The fields of an ErrorResponse or NoticeResponse that we keep.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-error-fields.html
 */
export interface ServerMessage {
  /** Never translated: `ERROR`, `FATAL`, `PANIC`, `WARNING`, … */
  readonly severity: string
  readonly sqlState: string
  readonly message: string
  readonly detail?: string | undefined
  readonly hint?: string | undefined
}

/** Classes of SQLSTATE that the passing of time mends: connection, resources, operator intervention. */
const isTransient = (sqlState: string): boolean =>
  sqlState.startsWith("08") ||
  sqlState.startsWith("53") ||
  sqlState === "57P01" ||
  sqlState === "57P02" ||
  sqlState === "57P03" ||
  sqlState === "57014" ||
  sqlState === "55P03"

/**
 * Any other ErrorResponse. `message`, `detail` and `hint` are the server's, in its language.
 *
 * `isRetryable` is whether one may try for ever. Some that are not may pass all the same, and are tried three times at
 * one position by streams that reconnect: with `lsn` they have been, and come again whenever that position is reached.
 */
export class ServerError extends Schema.TaggedError<ServerError>(id("ServerError"))("ServerError", {
  stage: Stage,
  severity: Schema.String,
  sqlState: Schema.String,
  serverMessage: Schema.String,
  detail: Schema.optional(Schema.String),
  hint: Schema.optional(Schema.String),
  /** Everything before it is done; what fails lies behind it. */
  lsn: Schema.optional(Lsn.Lsn)
}) {
  get remedy(): string | undefined {
    if (this.sqlState === "53300") return "end other connections, or raise max_wal_senders and restart the server"
    if (this.sqlState === "53400") return "drop a slot, or raise max_replication_slots and restart the server"
    if (this.sqlState === "58P01" && this.stage === "CreateSlot") return "install the output plugin on the server"
    if (this.sqlState === "22023" && this.stage === "StartReplication") {
      return this.hint ?? "leave out the option, which this version of the output plugin does not know"
    }
    return this.hint
  }
  get isRetryable(): boolean {
    return isTransient(this.sqlState)
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const at = this.lsn === undefined ? "" : `, behind LSN ${Lsn.format(this.lsn)} at each attempt`
    return `${this.severity} ${this.sqlState}: ${this.serverMessage}${at}`
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
  | DecodeError
  | TransactionTooLarge
  | SpillFailed
  | ServerError
