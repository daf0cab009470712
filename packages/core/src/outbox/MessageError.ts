/**
 * The two ways in which a message and its Schema disagree: a value that cannot be written, and content that cannot be read.
 * Neither holds a value, nor a text made from one.
 */
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { errorJson } from "../ReplicationError.ts"

const at = (path: string): string => (path === "" ? "" : ` at ${path}`)

/** A value that its Schema does not encode. Nothing was sent to the server. */
export class UnencodableMessage extends Schema.TaggedError<UnencodableMessage>("@replicant/core/UnencodableMessage")(
  "UnencodableMessage",
  {
    prefix: Schema.String,
    /** The way within the value: `.items[0].price`; `*` for a key that is data. `""` for the value itself. */
    path: Schema.String,
    /** What the Schema takes there. */
    expected: Schema.String
  }
) {
  readonly remedy = "mend the value, or declare in the Schema what it may be: nothing was sent"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `the message ${JSON.stringify(this.prefix)} cannot be encoded${at(this.path)}: expected ${this.expected}`
  }
}

/** Content that is not what its Schema says. Nothing from this message on is acknowledged. */
export class MessageMismatch extends Schema.TaggedError<MessageMismatch>("@replicant/core/MessageMismatch")(
  "MessageMismatch",
  {
    prefix: Schema.String,
    /** Which message: as `pg_logical_emit_message` returned it. */
    lsn: Lsn.Lsn,
    /** The way within the content: `.items[0].price`; `*` for a key that is data. `""` for the content itself. */
    path: Schema.String,
    /** What the Schema takes there. */
    expected: Schema.String
  }
) {
  get remedy(): string {
    return "declare in the Schema what writers have written, or let such messages through: see onMismatch"
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const where = `${at(this.path)}: expected ${this.expected} (LSN ${Lsn.format(this.lsn)})`
    return `the message ${JSON.stringify(this.prefix)} does not fit its Schema${where}`
  }
}
