/** A doctor's report for people: by severity, the worst first, each finding with what it does and what mends it. Pure. */
import { Doctor } from "@replicant/core/operations"
import type { Palette } from "./ChangeText.ts"
import { plainText } from "./PlainText.ts"
import { formatCount, plural } from "./Table.ts"

const headings: { readonly [Level in Doctor.Severity]: string } = {
  error: "ERROR",
  warning: "WARNING",
  unseen: "NOT SEEN",
  note: "NOTE"
}

/** In what order they are told. */
const severities = ["error", "warning", "unseen", "note"] as const

const paintOf = (palette: Palette): { readonly [Level in Doctor.Severity]: (text: string) => string } => ({
  error: palette.red,
  warning: palette.yellow,
  unseen: palette.cyan,
  note: palette.dim
})

/** Of one kind so many are told in full: whoever has a thousand tables has one problem. */
const mostOfAKind = 3

const places: { readonly [Name in Doctor.ServerName]: string } = {
  source: "",
  target: " (target)",
  standby: " (standby)"
}

const line = (label: string, text: string | undefined): ReadonlyArray<string> =>
  text === undefined || text === "" ? [] : [`  ${label.padEnd(6)} ${plainText(text)}`]

const findingLines = (finding: Doctor.Finding, palette: Palette): ReadonlyArray<string> => {
  const { consequence, cure, id, page, seen, server, severity, subject } = finding
  const paint = paintOf(palette)[severity]
  const about = subject === undefined ? "" : ` ${plainText(subject)}`
  return [
    `${paint(headings[severity])} ${palette.bold(id)}${about}${places[server]}`,
    ...line("seen", seen),
    ...line("means", consequence),
    ...cure.sql.map((sql) => `  ${"sql".padEnd(6)} ${palette.green(plainText(`${sql};`))}`),
    ...line(cure.sql.length === 0 ? "cure" : "and", cure.advice),
    ...line("takes", cure.right),
    ...line("mind", cure.risk),
    `  ${"page".padEnd(6)} ${palette.dim(page)}`
  ]
}

/** Findings of one kind, the first in full and how many more there are. */
const kindLines = (findings: ReadonlyArray<Doctor.Finding>, palette: Palette): ReadonlyArray<string> => {
  const more = findings.length - mostOfAKind
  return [
    ...findings.slice(0, mostOfAKind).flatMap((finding) => [...findingLines(finding, palette), ""]),
    ...(more > 0
      ? [`and ${formatCount(more)} more of ${findings[0]!.id}: --json tells of each, --sql mends each`, ""]
      : [])
  ]
}

const summary = (report: Doctor.Report): string => {
  const { checked, findings, server } = report
  const counts = severities.flatMap((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length
    if (count === 0) return []
    return severity === "unseen" ? [`${count} not seen`] : [plural(count, severity)]
  })
  const where =
    server === null
      ? ""
      : `, PostgreSQL ${server.version}${server.isStandby ? ", a standby" : ""}, database ${plainText(server.database)}`
  return `${counts.length === 0 ? "all is well" : counts.join(", ")}: ${plural(checked.length, "check")}${where}`
}

/** The report as lines, with a line break after each. */
export const formatReport = (report: Doctor.Report, palette: Palette): string => {
  const lines = severities.flatMap((severity) => {
    const kinds = new Map<string, Array<Doctor.Finding>>()
    for (const finding of report.findings) {
      if (finding.severity !== severity) continue
      const kind = kinds.get(finding.id)
      if (kind === undefined) kinds.set(finding.id, [finding])
      else kind.push(finding)
    }
    return [...kinds.values()].flatMap((kind) => kindLines(kind, palette))
  })
  const paint = { well: palette.green, unwell: palette.red, unsure: palette.yellow }[Doctor.verdict(report)]
  return `${[...lines, paint(summary(report))].join("\n")}\n`
}
