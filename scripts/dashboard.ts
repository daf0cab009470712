/**
 * `ops/grafana-dashboard.json`, made of the panels of `dashboardPanels.ts`: `npm run api` writes it, and a test holds it to this and
 * to the metrics that there are. Under a lease several processes tell of one slot, so each query says of which of them it is: the one
 * that streams.
 */
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import { type Panel, rows } from "./dashboardPanels.ts"

const datasource = { type: "prometheus", uid: "$datasource" }
const height = 7
const width = 12

const mappingsOf = (words: Panel["words"]) =>
  words === undefined
    ? []
    : [
        {
          type: "value",
          options: Object.fromEntries(
            Object.entries(words).map(([value, [text, color]], index) => [value, { color, index, text }])
          )
        }
      ]

const optionsOf = (kind: NonNullable<Panel["kind"]>) =>
  ({
    timeseries: { legend: { displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi" } },
    "state-timeline": { legend: { displayMode: "list", placement: "bottom", showLegend: false }, showValue: "auto" },
    heatmap: { calculate: false, yAxis: { unit: "s" } }
  })[kind]

const panelOf = ({ isSigned, kind = "timeseries", queries, says, title, unit, words }: Panel) => ({
  type: kind,
  title,
  ...(says === undefined ? {} : { description: says }),
  datasource,
  fieldConfig: {
    defaults: {
      mappings: mappingsOf(words),
      ...(isSigned === true ? {} : { min: 0 }),
      unit,
      ...(words === undefined ? {} : { color: { mode: "thresholds" } })
    },
    overrides: []
  },
  options: optionsOf(kind),
  targets: queries.map(({ expr, legend }, index) => ({
    refId: String.fromCharCode(65 + index),
    datasource,
    editorMode: "code",
    expr,
    format: kind === "heatmap" ? "heatmap" : "time_series",
    legendFormat: legend,
    range: true
  }))
})

/** Rows one below the other, two panels beside each other. */
const laidOut = () => {
  let y = 0
  let id = 0
  return rows.flatMap(({ panels, title }) => {
    const heading = {
      id: ++id,
      type: "row",
      title,
      collapsed: false,
      gridPos: { h: 1, w: 24, x: 0, y: y++ },
      panels: []
    }
    const placed = panels.map((panel, index) => ({
      id: ++id,
      ...panelOf(panel),
      gridPos: { h: height, w: width, x: (index % 2) * width, y: y + Math.floor(index / 2) * height }
    }))
    y += Math.ceil(panels.length / 2) * height
    return [heading, ...placed]
  })
}

/** The dashboard, as Grafana imports it. */
export const dashboard = () => ({
  uid: "replicant",
  title: "Replicant",
  description: "Streams of Replicant, by the metrics that docs/metrics.md lists",
  tags: ["replicant", "postgresql"],
  schemaVersion: 38,
  editable: true,
  graphTooltip: 1,
  refresh: "10s",
  time: { from: "now-1h", to: "now" },
  templating: {
    list: [
      { name: "datasource", label: "Prometheus", type: "datasource", query: "prometheus" },
      {
        name: "slot",
        label: "Slot",
        type: "query",
        datasource,
        definition: "label_values(replicant_health, slot)",
        query: { query: "label_values(replicant_health, slot)", refId: "slots" },
        refresh: 2,
        sort: 1,
        multi: true,
        includeAll: true,
        allValue: ".*",
        current: { text: "All", value: "$__all" }
      }
    ]
  },
  panels: laidOut()
})

/** The text of the file. */
export const dashboardText = (): string => `${JSON.stringify(dashboard(), undefined, 2)}\n`

export const dashboardPath = fileURLToPath(new URL("../ops/grafana-dashboard.json", import.meta.url))

if (import.meta.main) Fs.writeFileSync(dashboardPath, dashboardText())
