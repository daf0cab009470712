/**
 * Every way in which a sink fails. Each class has a `_tag`, `isRetryable`, and a `remedy`. No error holds a row value, a key or
 * a password; what an engine says is quoted on one line.
 */
import * as Schema from "effect/Schema"
import { errorId, logText } from "../ErrorForm.ts"

/** No connection to the engine, or none any more, or no answer in time. Whether the last append is stored is not known. */
export class SinkUnavailable extends Schema.TaggedError<SinkUnavailable>(errorId("SinkUnavailable"))(
  "SinkUnavailable",
  {
    /** Which sink: an engine, and what of it. */
    sink: Schema.String,
    reason: Schema.Literals(["Refused", "Closed", "TimedOut", "NotReady"]),
    detail: Schema.String
  }
) {
  get remedy(): string {
    return "nothing, if it passes: the stream is held back, PostgreSQL keeps WAL meanwhile, and what is missing is appended then; else see that the engine runs and can be reached"
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `${this.sink} is not available (${this.reason}): ${logText(this.detail)}`
  }
}

/** The engine has no room. Nothing of the append is stored, and nothing behind it. */
export class SinkFull extends Schema.TaggedError<SinkFull>(errorId("SinkFull"))("SinkFull", {
  sink: Schema.String,
  detail: Schema.String,
  remedy: Schema.String
}) {
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `${this.sink} is full: ${logText(this.detail)}`
  }
}

/** The engine will not have this message, now or ever. */
export class SinkRejected extends Schema.TaggedError<SinkRejected>(errorId("SinkRejected"))("SinkRejected", {
  sink: Schema.String,
  /** The message's place. */
  id: Schema.String,
  /** Bytes, as far as they are known. */
  size: Schema.optional(Schema.Number),
  detail: Schema.String
}) {
  get remedy(): string {
    return "raise the engine's limit for a message; or send what it rejects elsewhere with `onRejected`; or leave the column or the table out of the publication"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const size = this.size === undefined ? "" : `, ${this.size} bytes`
    return `${this.sink} rejects the message ${this.id}${size}: ${logText(this.detail)}`
  }
}

/** The engine will not have us: a wrong password, a right that is missing, TLS, or something that is set up otherwise. */
export class SinkRefused extends Schema.TaggedError<SinkRefused>(errorId("SinkRefused"))("SinkRefused", {
  sink: Schema.String,
  reason: Schema.Literals(["Authentication", "Permission", "Tls", "Setup"]),
  detail: Schema.String,
  remedy: Schema.String
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.sink} refuses us (${this.reason}): ${logText(this.detail)}`
  }
}

/** Another writer has opened this sink after us, or has appended behind our back. Nothing of ours was stored. */
export class SinkFenced extends Schema.TaggedError<SinkFenced>(errorId("SinkFenced"))("SinkFenced", {
  sink: Schema.String,
  detail: Schema.String
}) {
  get remedy(): string {
    return "see who else writes there: after a take-over this is the former owner, which is to end; two streams need a sink each"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `another writer has taken ${this.sink} over: ${logText(this.detail)}`
  }
}

/**
 * The engine holds less than it had acknowledged: it was restored, emptied, or lost its tail. The slot has moved on, so what is
 * between never comes again.
 */
export class SinkBehindSlot extends Schema.TaggedError<SinkBehindSlot>(errorId("SinkBehindSlot"))("SinkBehindSlot", {
  sink: Schema.String,
  /** What it holds last; `undefined` if nothing. */
  mark: Schema.optional(Schema.String),
  /** What it had acknowledged last, as far as is known. */
  note: Schema.String
}) {
  get remedy(): string {
    return 'restore the engine to a later state; or copy the tables anew: drop the slot, remove the note, and begin with `snapshot: "initial"`'
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.sink} had acknowledged ${this.note}, and now holds ${this.mark ?? "nothing"}: what is between is lost`
  }
}

/**
 * What the engine holds is not of this stream's past: another cluster's, or later than anything that is here. A mark has no timeline:
 * after a failover that lost transactions this is told only while the new primary's WAL is shorter than what the engine holds.
 */
export class SinkMismatch extends Schema.TaggedError<SinkMismatch>(errorId("SinkMismatch"))("SinkMismatch", {
  sink: Schema.String,
  mark: Schema.String,
  problem: Schema.String
}) {
  get remedy(): string {
    return "use another sink for another cluster; after a failover that lost transactions, which the sink then has and nobody else, begin a new sink with a snapshot, and do not wait until the server's WAL is longer than what the sink holds: from then on nothing tells, and what was committed meanwhile counts as held"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `what ${this.sink} holds, up to ${this.mark}, is not of this stream: ${logText(this.problem)}`
  }
}

/** Any of them. */
export type SinkError =
  | SinkUnavailable
  | SinkFull
  | SinkRejected
  | SinkRefused
  | SinkFenced
  | SinkBehindSlot
  | SinkMismatch
