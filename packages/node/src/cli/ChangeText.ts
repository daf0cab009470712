/**
 * Changes for people: one line a change under one line a transaction, short and, on a terminal, in colour. Long values are
 * cut; whoever wants all of them wants the JSON lines of `ChangeJson.ts`.
 */
import { Lsn, PgTimestamp, Relation, type Row, type Snapshot } from "@replicant/core"
import { ValueJson } from "@replicant/core/sink"
import { plainText } from "./PlainText.ts"
import { formatCount, plural } from "./Table.ts"

/** Wraps text so that a terminal shows it in some way; without colour it is the text. */
export interface Palette {
  readonly dim: (text: string) => string
  readonly bold: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
  readonly cyan: (text: string) => string
}

const plain = (text: string): string => text
const sgr = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`

export const withoutColor: Palette = { dim: plain, bold: plain, red: plain, green: plain, yellow: plain, cyan: plain }

/** The terminal's own palette: readable whatever its background. */
export const withColor: Palette = {
  dim: sgr(2),
  bold: sgr(1),
  red: sgr(31),
  green: sgr(32),
  yellow: sgr(33),
  cyan: sgr(36)
}

const maxValue = 48

/** A value, short: JSON's form, but for a text the reader can tell apart without its quotes. */
const formatValue = (value: unknown): string => {
  if (typeof value === "bigint") return String(value)
  const text = plainText(ValueJson.encodeValue(value)).replace(/^"([^"\\\s]+)"$/, "$1")
  return text.length <= maxValue ? text : `${text.slice(0, maxValue - 1)}…`
}

export class ChangeText {
  private readonly palette: Palette

  constructor(palette: Palette) {
    this.palette = palette
  }

  private table(relation: Relation.Relation): string {
    return this.palette.bold(plainText(`${relation.schema}.${relation.name}`))
  }

  private columns(row: Row, keys: ReadonlyArray<string>): string {
    const { bold, dim } = this.palette
    return Object.keys(row)
      .map((name) => {
        const value = row[name] === null ? dim("null") : formatValue(row[name])
        return `${dim(`${plainText(name)}=`)}${keys.includes(name) ? bold(value) : value}`
      })
      .join(" ")
  }

  /** A change as text without its line break, or `undefined` where there is nothing to show. */
  format(change: Snapshot.ChangeAfterSnapshot): string | undefined {
    const { cyan, dim, green, red, yellow } = this.palette
    switch (change._tag) {
      case "SnapshotStarted": {
        const seam = dim(
          `-- snapshot of ${plural(change.tables.length, "table")} as of ${Lsn.format(change.consistentPoint)}`
        )
        return change.attempt === 1 ? seam : `${seam}${red(" (begun anew: what came before is void)")}`
      }
      case "SnapshotResumed": {
        const done = change.tables.filter(({ state }) => state === "complete").length
        const tables = `${formatCount(done)} of ${plural(change.tables.length, "table")} complete`
        return dim(`-- snapshot goes on, ${tables}, the rest as of ${Lsn.format(change.consistentPoint)}`)
      }
      case "SnapshotTableRestarted":
        return `  ${red("restarted")} ${this.table(change.relation)}${dim(": what came of it before is void")}`
      case "SnapshotRowDeleted": {
        const keys = Relation.keyColumns(change.relation)
        return `  ${red("- gone")} ${this.table(change.relation)} ${this.columns(change.old.row, keys)}`
      }
      case "SnapshotRangeCompleted":
        return undefined
      case "SnapshotRow": {
        const keys = Relation.keyColumns(change.relation)
        return `  ${green("= row")} ${this.table(change.relation)} ${this.columns(change.row, keys)}`
      }
      case "TableSnapshotStarted":
      case "TableSnapshotResumed":
        return `  ${dim("read anew")} ${this.table(change.relation)}`
      case "TableSnapshotCompleted":
      case "SnapshotTableCompleted":
        return `  ${dim("completed")} ${this.table(change.relation)}${dim(`, ${plural(change.rows, "row")}`)}`
      case "SnapshotCompleted":
        return dim(`-- snapshot completed, ${plural(change.rows, "row")}`)
      case "Begin":
        return dim(
          `-- transaction ${change.xid}, ${change.gid === undefined ? "committed" : "prepared"} ${PgTimestamp.format(change.commitTime)}, ${Lsn.format(change.commitLsn)}`
        )
      case "Commit":
        return undefined
      case "Prepare":
        return `  ${cyan("* prepare")} ${plainText(change.gid)}`
      case "CommitPrepared":
        return `${cyan("* commit prepared")} ${plainText(change.gid)}`
      case "RollbackPrepared":
        return `${cyan("* rollback prepared")} ${plainText(change.gid)}`
      case "Gap":
        return `${red("! gap")} ${plainText(change.reason)}: changes are missing up to ${Lsn.format(change.consistentPoint)}`
      case "Insert": {
        const keys = Relation.keyColumns(change.relation)
        return `  ${green("+ insert")} ${this.table(change.relation)} ${this.columns(change.row, keys)}`
      }
      case "Update": {
        const keys = Relation.keyColumns(change.relation)
        const old = change.old === undefined ? "" : dim(` (was ${this.columns(change.old.row, [])})`)
        const unchanged =
          change.unchanged.length === 0 ? "" : dim(` (unchanged: ${change.unchanged.map(plainText).join(", ")})`)
        return `  ${yellow("~ update")} ${this.table(change.relation)} ${this.columns(change.row, keys)}${unchanged}${old}`
      }
      case "Delete": {
        const keys = Relation.keyColumns(change.relation)
        return `  ${red("- delete")} ${this.table(change.relation)} ${this.columns(change.old.row, keys)}`
      }
      case "Truncate":
        return `  ${red("- truncate")} ${change.relations.map((relation) => this.table(relation)).join(", ")}`
      case "Message":
        return `  ${cyan("* message")} ${plainText(change.prefix)}: ${formatValue(new TextDecoder().decode(change.content))}`
      case "Origin":
        return dim(`  from origin ${plainText(change.name)}`)
      case "RelationChanged": {
        const { added, dropped, retyped } = Relation.difference(change.before, change.relation)
        const list = (word: string, names: ReadonlyArray<string>) =>
          names.length === 0 ? [] : [`${word} ${names.map(plainText).join(", ")}`]
        const what = [...list("added", added), ...list("dropped", dropped), ...list("retyped", retyped)]
        return `  ${cyan("* altered")} ${this.table(change.relation)} ${what.join("; ")}`.trimEnd()
      }
    }
  }
}
