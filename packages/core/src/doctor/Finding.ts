/**
 * What a doctor says: findings, each with its cure, in a report. Values with a Schema, so that a page, a probe or another
 * program can take them as JSON.
 *
 * No finding holds a secret, a row value, or the text of somebody's query.
 */
import * as Schema from "effect/Schema"

/**
 * How bad it is. `error`: something asked for fails, or data is lost; `warning`: it will, if nothing is done, or works by luck;
 * `note`: worth knowing, and all is well; `unseen`: it could not be looked at, so nobody knows.
 */
export const Severity = Schema.Literals(["error", "warning", "note", "unseen"])
export type Severity = typeof Severity.Type

/** Which server is meant: the one that is followed, the target of a copy, or a standby of the first. */
export const ServerName = Schema.Literals(["source", "target", "standby"])
export type ServerName = typeof ServerName.Type

/** What mends it. */
export const Cure = Schema.Struct({
  /** Statements, whole and quoted, to be run in this order on the server that the finding is of. Empty where no SQL helps. */
  sql: Schema.Array(Schema.String),
  /** What is to be done beside the statements, or instead of them. */
  advice: Schema.optional(Schema.String),
  /** What a role needs to run the statements. */
  right: Schema.optional(Schema.String),
  /** What the statements cost, where that is more than time: `script` leaves such ones commented out. */
  risk: Schema.optional(Schema.String)
})
export type Cure = typeof Cure.Type

/** One thing that was found. */
export const Finding = Schema.Struct({
  /** The check that found it, `slot.lost`; or `unseen.` and what could not be read. */
  id: Schema.String,
  severity: Severity,
  server: ServerName,
  /** The slot, table, publication or setting that it is about, as it is named in SQL. */
  subject: Schema.optional(Schema.String),
  /** What was seen. */
  seen: Schema.String,
  /** What it will do to you. */
  consequence: Schema.String,
  cure: Cure,
  /** Where more is told, from the root of the repository. */
  page: Schema.String
})
export type Finding = typeof Finding.Type

/** Who answered. */
export const Server = Schema.Struct({
  /** `18.4` */
  version: Schema.String,
  database: Schema.String,
  role: Schema.String,
  isStandby: Schema.Boolean
})

/** All that was found, the worst first, and what was looked for. */
export const Report = Schema.Struct({
  /** Null where no session at the source was to be had. */
  server: Schema.NullOr(Server),
  /** The checks that were carried out: those without a finding are silent because all is well. */
  checked: Schema.Array(Schema.String),
  findings: Schema.Array(Finding)
})
export type Report = typeof Report.Type

/**
 * What a report comes to: `unwell` where there is an error or a warning, else `unsure` where something could not be looked at,
 * else `well`. Notes change nothing.
 */
export const verdict = ({ findings }: Report): "well" | "unwell" | "unsure" => {
  if (findings.some(({ severity }) => severity === "error" || severity === "warning")) return "unwell"
  return findings.some(({ severity }) => severity === "unseen") ? "unsure" : "well"
}
