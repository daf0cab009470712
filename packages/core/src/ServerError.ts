/** What the server answers when it will not: its message, when it came, and the error that stands for any it has no other for. */
import * as Schema from "effect/Schema"
import { errorId, errorJson, logText } from "./ErrorForm.ts"
import * as Lsn from "./Lsn.ts"

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
  /** The server's own function that says so: never translated. */
  readonly routine?: string | undefined
}

const quotedTable = ({ name, schema }: { readonly schema: string; readonly name: string }): string =>
  `"${schema}"."${name}"`

/** One side does not speak as the other expects: it may be damage on the way, and no number of attempts mends a mistake. */
const protocolViolation = "08P01"

/** Classes of SQLSTATE that the passing of time mends: connection, resources, operator intervention. */
const isTransient = (sqlState: string): boolean =>
  (sqlState.startsWith("08") && sqlState !== protocolViolation) ||
  sqlState.startsWith("53") ||
  sqlState === "57P01" ||
  sqlState === "57P02" ||
  sqlState === "57P03" ||
  sqlState === "57P05" ||
  sqlState === "57014" ||
  sqlState === "55P03"

/** Of every database of encoding SQL_ASCII: it takes any bytes, and what is no UTF-8 cannot be sent to who asked for that. */
const otherBytes =
  "the database's encoding did not check its text, as SQL_ASCII never does (SHOW server_encoding): mend the rows, convert_from(convert(convert_to(COLUMN, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII') where LATIN1 is what they are in, or leave the column out of the publication"

/** What is in the WAL stays as it is. */
const behindPosition =
  "; for what is in the WAL already move the slot beyond it (replicant slot advance), and copy the table again"

const notSent =
  "a row there cannot be sent: mend what the code tells of, such as a row filter that fails, or leave the column or table out of the publication"

/**
 * Any other ErrorResponse. `message`, `detail` and `hint` are the server's, in its language.
 *
 * `isRetryable` is whether one may try for ever. Some that are not may pass all the same, and are tried three times at
 * one position by streams that reconnect: with `lsn` they have been, and come again whenever that position is reached.
 */
export class ServerError extends Schema.TaggedError<ServerError>(errorId("ServerError"))("ServerError", {
  stage: Stage,
  severity: Schema.String,
  sqlState: Schema.String,
  serverMessage: Schema.String,
  detail: Schema.optional(Schema.String),
  hint: Schema.optional(Schema.String),
  /** Everything before it is done; what fails lies behind it. */
  lsn: Schema.optional(Lsn.Lsn),
  /** The table whose rows were being copied. Of a change the server does not tell it. */
  table: Schema.optional(Schema.Struct({ schema: Schema.String, name: Schema.String }))
}) {
  get remedy(): string | undefined {
    if (this.sqlState === "53300") return "end other connections, or raise max_wal_senders and restart the server"
    if (this.sqlState === "53400") return "drop a slot, or raise max_replication_slots and restart the server"
    if (this.sqlState === "72000")
      return "set old_snapshot_threshold to -1, or longer than a snapshot takes, and restart"
    if (this.sqlState === "58P01" && this.stage === "CreateSlot") return "install the output plugin on the server"
    if (this.sqlState === "22023" && this.stage === "StartReplication") {
      return this.hint ?? "leave out the option, which this version of the output plugin does not know"
    }
    const behind = this.lsn === undefined ? "" : behindPosition
    if (this.sqlState === "22021" || this.sqlState === "22P05") return `${otherBytes}${behind}`
    return this.hint ?? (this.lsn === undefined ? undefined : `${notSent}${behind}`)
  }
  get isRetryable(): boolean {
    return isTransient(this.sqlState)
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const at = this.lsn === undefined ? "" : `, behind LSN ${Lsn.format(this.lsn)} at each attempt`
    const where = this.table === undefined ? "" : `, in the rows of ${logText(quotedTable(this.table))}`
    return `${this.severity} ${this.sqlState}: ${this.serverMessage}${where}${at}`
  }
}
