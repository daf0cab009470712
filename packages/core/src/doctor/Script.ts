/** The cures of a report as one SQL script, for somebody to read and run. Pure. */
import { logText } from "../ReplicationError.ts"
import type { Finding, Report, ServerName } from "./Finding.ts"

const places: { readonly [Name in ServerName]: string } = {
  source: "at the source",
  target: "at the target of the copy",
  standby: "at the standby"
}

/** One line of comment, whatever names are in it. */
const comment = (text: string): string => `-- ${logText(text)}`

const statement = (sql: string): string => (sql.endsWith(";") ? sql : `${sql};`)

/** A statement that may lose something is there to be read: each of its lines is a comment. */
const asComment = (sql: string): ReadonlyArray<string> =>
  statement(sql)
    .split("\n")
    .map((line) => `-- ${line}`)

/** Why a cure is not simply to be run. */
const doubt = ({ cure: { risk }, severity }: Finding): string | undefined =>
  risk ?? (severity === "note" ? "all is well as it is" : undefined)

const cureOf = (finding: Finding, told: Set<string>): ReadonlyArray<string> => {
  const { advice, right, sql } = finding.cure
  const fresh = sql.filter((text) => !told.has(text))
  for (const text of fresh) told.add(text)
  if (fresh.length === 0) return []
  const objection = doubt(finding)
  return [
    "",
    comment(`${finding.id}: ${finding.seen}`),
    ...(right === undefined ? [] : [comment(`takes ${right}`)]),
    ...(advice === undefined ? [] : [comment(advice)]),
    ...(objection === undefined ? [] : [comment(`not run unless you take the dashes away: ${objection}`)]),
    ...(objection === undefined ? fresh.map(statement) : fresh.flatMap(asComment))
  ]
}

/**
 * Every statement that mends something, once, by server, under a comment that says what for. What would lose data or end
 * somebody's session is commented out, and so is what a note would change. Running it is left to whoever has read it.
 *
 * @example
 * const cures = (report: Doctor.Report) => Doctor.script(report)
 */
export const script = ({ findings }: Report): string => {
  const lines = (["source", "target", "standby"] as const).flatMap((server) => {
    const told = new Set<string>()
    const cures = findings.filter((finding) => finding.server === server).flatMap((finding) => cureOf(finding, told))
    return cures.length === 0 ? [] : ["", comment(`To be run ${places[server]}.`), ...cures]
  })
  const head = comment(
    "What replicant doctor would do. Nothing of it has been run. For psql: no transaction around it."
  )
  return `${[head, ...(lines.length === 0 ? [comment("There is nothing to mend by SQL.")] : lines)].join("\n")}\n`
}
