/**
 * Ways to fail that only a copy knows; the rest are core's. Messages name tables, columns and constraints, and never a value.
 */
import type { ReplicationError, Snapshot } from "@replicant/core"
import { logText } from "@replicant/core/driver"
import * as Schema from "effect/Schema"

const errorId = <const Name extends string>(name: Name): `@replicant/node/${Name}` => `@replicant/node/${name}`

const Names = Schema.Array(Schema.String)

/** What a copy needs is not there, and it was not asked to make it. Nothing was made. */
export class CopyNotSetUp extends Schema.TaggedError<CopyNotSetUp>(errorId("CopyNotSetUp"))("CopyNotSetUp", {
  missing: Schema.Array(
    Schema.Struct({
      /** `slot "orders" at the source`. */
      what: Schema.String,
      /** SQL that makes it; `undefined` where only the copy itself can. */
      command: Schema.optional(Schema.String)
    })
  )
}) {
  get remedy(): string {
    const commands = this.missing.flatMap(({ command }) => (command === undefined ? [] : [command]))
    const byHand = commands.length === 0 ? "" : `; or make it at the target: ${commands.join("; ")}`
    return `let the copy make it: create${byHand}`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `missing: ${this.missing.map(({ what }) => what).join(", ")}`
  }
}

/** The target's tables do not fit what is published. Nothing was written. */
export class CopyMismatch extends Schema.TaggedError<CopyMismatch>(errorId("CopyMismatch"))("CopyMismatch", {
  /** One for each table or column that does not fit. */
  problems: Names
}) {
  readonly remedy = "alter the target's tables: pg_dump --schema-only of the source has their definitions"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `the target does not fit what is published: ${this.problems.map(logText).join("; ")}`
  }
}

/** A first copy would mix its rows with others. Nothing was written. */
export class TargetNotEmpty extends Schema.TaggedError<TargetNotEmpty>(errorId("TargetNotEmpty"))("TargetNotEmpty", {
  tables: Names
}) {
  readonly remedy = "empty them, or let the copy do it: truncate"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `the target has rows already in ${this.tables.map(logText).join(", ")}`
  }
}

/** Rows of a table that has joined the publication, or is published otherwise, cannot be had beside the stream. */
export class TableNotCopied extends Schema.TaggedError<TableNotCopied>(errorId("TableNotCopied"))("TableNotCopied", {
  table: Schema.String,
  problem: Schema.String,
  remedy: Schema.String
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${logText(this.table)} is published, its rows are not at the target, and they cannot be read now: ${this.problem}`
  }
}

/** Source and target are one database: each change would come back as another. */
export class TargetIsSource extends Schema.TaggedError<TargetIsSource>(errorId("TargetIsSource"))("TargetIsSource", {
  database: Schema.String
}) {
  readonly remedy = "name two databases"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `source and target are the same database "${logText(this.database)}"`
  }
}

/** The target's role may not do what a copy does there. */
export class TargetDenied extends Schema.TaggedError<TargetDenied>(errorId("TargetDenied"))("TargetDenied", {
  detail: Schema.String,
  remedy: Schema.String
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return logText(this.detail)
  }
}

/** Another session keeps this copy's place at the target: another process, or what is left of one that was killed. */
export class TargetInUse extends Schema.TaggedError<TargetInUse>(errorId("TargetInUse"))("TargetInUse", {
  slot: Schema.String,
  pid: Schema.optional(Schema.Number)
}) {
  get remedy(): string {
    return this.pid === undefined
      ? "wait for the other copy to end"
      : `stop the other copy, or end its session at the target: SELECT pg_terminate_backend(${this.pid})`
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const by = this.pid === undefined ? "" : `, by pid ${this.pid}`
    return `a copy from slot "${this.slot}" is at work in the target already${by}`
  }
}

/** Slot and stored position do not belong together: one of them is gone, or somebody else's. */
export class CopyPositionLost extends Schema.TaggedError<CopyPositionLost>(errorId("CopyPositionLost"))(
  "CopyPositionLost",
  { slot: Schema.String, problem: Schema.String, remedy: Schema.String }
) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `slot "${this.slot}": ${this.problem}`
  }
}

/** SQLSTATEs after which the same transaction may well succeed: lost connections, deadlocks, conflicts, full resources. */
const mayPass = (sqlState: string): boolean =>
  /^(08|40|53)/.test(sqlState) || ["55P03", "55006", "57014", "57P01", "57P02", "57P03", "57P05"].includes(sqlState)

/** The target refused a statement. Which row it was about is told by its own log alone. */
export class TargetFailed extends Schema.TaggedError<TargetFailed>(errorId("TargetFailed"))("TargetFailed", {
  sqlState: Schema.String,
  /** The server's text, where it cannot quote a value. */
  serverMessage: Schema.optional(Schema.String),
  table: Schema.optional(Schema.String),
  column: Schema.optional(Schema.String),
  constraint: Schema.optional(Schema.String)
}) {
  get remedy(): string {
    if (this.constraint !== undefined) {
      return "look at the row in the target's log; drop the constraint there, or mend the row that stands in the way"
    }
    return this.sqlState.startsWith("22") && this.table !== undefined
      ? "give the column at the target a type that takes it; the row is in the target's log"
      : "look at the target's log"
  }
  get isRetryable(): boolean {
    return mayPass(this.sqlState)
  }
  override get message(): string {
    const parts = [
      ...(this.table === undefined ? [] : [` of ${logText(this.table)}`]),
      ...(this.column === undefined ? [] : [`, column "${logText(this.column)}"`]),
      ...(this.constraint === undefined ? [] : [`: constraint "${logText(this.constraint)}"`]),
      ...(this.serverMessage === undefined ? [] : [`: ${logText(this.serverMessage)}`])
    ]
    return `the target refused a change${parts.join("")} (${this.sqlState})`
  }
}

/** Every way in which the target fails. */
export type TargetError =
  | CopyNotSetUp
  | CopyMismatch
  | TargetNotEmpty
  | TableNotCopied
  | TargetIsSource
  | TargetDenied
  | TargetInUse
  | CopyPositionLost
  | TargetFailed

/** Every way in which a copy fails. */
export type CopyError = Snapshot.Error | ReplicationError | TargetError
