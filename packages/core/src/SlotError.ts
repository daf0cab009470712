/** What can be wrong with a replication slot: not there, not ours, in use, given up, ahead, or not to be made. */
import * as Schema from "effect/Schema"
import { errorId, errorJson, logText } from "./ErrorForm.ts"
import * as Lsn from "./Lsn.ts"

/** Another connection streams from the slot (55006). Slots are freed late, so waiting is right. */
export class SlotInUse extends Schema.TaggedError<SlotInUse>(errorId("SlotInUse"))("SlotInUse", {
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
export class SlotNotFound extends Schema.TaggedError<SlotNotFound>(errorId("SlotNotFound"))("SlotNotFound", {
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
export class SlotAlreadyExists extends Schema.TaggedError<SlotAlreadyExists>(errorId("SlotAlreadyExists"))(
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
export class SlotInvalidated extends Schema.TaggedError<SlotInvalidated>(errorId("SlotInvalidated"))(
  "SlotInvalidated",
  {
    slot: Schema.String,
    /** As in `pg_replication_slots.invalidation_reason`; `unknown` before PostgreSQL 17. */
    reason: Schema.String,
    /** What its consumer had confirmed: what was committed from there on is lost. */
    lastLsn: Schema.optional(Lsn.Lsn)
  }
) {
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
export class SlotAheadOfCheckpoint extends Schema.TaggedError<SlotAheadOfCheckpoint>(errorId("SlotAheadOfCheckpoint"))(
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
export class SlotCreationBlocked extends Schema.TaggedError<SlotCreationBlocked>(errorId("SlotCreationBlocked"))(
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
export class SlotMismatch extends Schema.TaggedError<SlotMismatch>(errorId("SlotMismatch"))("SlotMismatch", {
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
