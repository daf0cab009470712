/** docs/metrics.md, made of the table in `replication/Metrics.ts`: `npm run api` writes it, and a test holds it to that. */
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as Metrics from "../packages/core/src/replication/Metrics.ts"

const units = {
  By: "bytes",
  "By/s": "bytes a second",
  s: "seconds",
  "1": "",
  "rows/s": "rows a second",
  lsn: "position in bytes"
} as const

const row = ([id, { kind, label, mayBeAbsent, says, unit }]: readonly [
  string,
  Metrics.Declared & { readonly kind: string }
]): string => {
  const labels = label === undefined ? "`slot`" : `\`slot\`, \`${label}\``
  const absent = mayBeAbsent === true ? "may be" : ""
  return `| \`${id}\` | ${kind.toLowerCase()} | ${units[unit]} | ${labels} | ${absent} | ${says} |`
}

/** The page. */
export const metricsPage = (table: typeof Metrics.table): string => `# Metrics

Every metric that Replicant has, by name. Written by \`npm run api\` from the table in
\`packages/core/src/replication/Metrics.ts\`; a test fails when it is not what that says. What they mean together, what to alert on,
and how they get out of the process is in [watching.md](watching.md).

Positions are bytes of WAL, as \`pg_wal_lsn_diff(lsn, '0/0')\` counts them. What may be absent is so while it cannot be known.
Beside the labels here each series has those that the program has set by \`Metric.CurrentMetricAttributes\`.

| Metric | Kind | Unit | Labels | Absent | Says |
|---|---|---|---|---|---|
${[...table].map(row).join("\n")}

The histograms' bounds are, in seconds: ${Metrics.boundaries.join(", ")}.
`

export const metricsPath = fileURLToPath(new URL("../docs/metrics.md", import.meta.url))

if (import.meta.main) Fs.writeFileSync(metricsPath, metricsPage(Metrics.table))
