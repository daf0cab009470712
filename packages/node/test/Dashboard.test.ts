/** The dashboard in `ops/`: what Grafana takes, over metrics that there are. */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Metrics } from "@replicant/core/operations"
import { Schema } from "effect"
import { dashboardPath, dashboardText } from "../../../scripts/dashboard.ts"

const Target = Schema.Struct({ refId: Schema.String, expr: Schema.String, legendFormat: Schema.String })

/** What Grafana makes a panel of. */
const Panel = Schema.Struct({
  id: Schema.Int,
  title: Schema.String,
  type: Schema.Literals(["row", "timeseries", "state-timeline", "heatmap"]),
  gridPos: Schema.Struct({ h: Schema.Int, w: Schema.Int, x: Schema.Int, y: Schema.Int }),
  datasource: Schema.optionalKey(
    Schema.Struct({ type: Schema.Literal("prometheus"), uid: Schema.Literal("$datasource") })
  ),
  targets: Schema.optionalKey(Schema.NonEmptyArray(Target))
})

const Dashboard = Schema.Struct({
  uid: Schema.String,
  title: Schema.String,
  schemaVersion: Schema.Int,
  templating: Schema.Struct({ list: Schema.Array(Schema.Struct({ name: Schema.String, type: Schema.String })) }),
  panels: Schema.NonEmptyArray(Panel)
})

const text = Fs.readFileSync(dashboardPath, "utf8")
const dashboard = Schema.decodeUnknownSync(Dashboard)(JSON.parse(text))
const panels = dashboard.panels.filter(({ type }) => type !== "row")
const targets = panels.flatMap(({ targets = [] }) => targets)

/** The names of metrics, as Prometheus has them, that are declared as `kind`. */
const namesOf = (kind: string) =>
  [...Metrics.table].flatMap(([name, declared]) =>
    declared.kind !== kind ? [] : kind === "Histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]
  )
const asked = (expr: string) => [...expr.matchAll(/\breplicant_\w+/g)].map(([name]) => name)

/** The labels that a metric's series have. */
const labelsOf = (name: string): ReadonlyArray<string> => {
  if (name.endsWith("_bucket")) return ["slot", "le"]
  const label = Metrics.table.get(name)?.label
  return label === undefined ? ["slot"] : ["slot", label]
}

describe("the dashboard", () => {
  it("is what its script makes, and what Grafana takes", () => {
    assert.strictEqual(text, dashboardText(), "npm run api writes it")
    assert.deepStrictEqual(dashboard.templating.list, [
      { name: "datasource", type: "datasource" },
      { name: "slot", type: "query" }
    ])
    const ids = dashboard.panels.map(({ id }) => id)
    assert.lengthOf(new Set(ids), ids.length)
    const taken = new Set<string>()
    for (const { datasource, gridPos, targets, title, type } of dashboard.panels) {
      assert.strictEqual(type === "row", targets === undefined && datasource === undefined, title)
      assert.isAtMost(gridPos.x + gridPos.w, 24, title)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.isFalse(taken.has(`${x} ${y}`), `${title} lies over another`)
          taken.add(`${x} ${y}`)
        }
      }
      const refIds = (targets ?? []).map(({ refId }) => refId)
      assert.lengthOf(new Set(refIds), refIds.length, title)
    }
  })

  it("asks for metrics that there are, by the labels that they have", () => {
    const known = new Set(["Counter", "Gauge", "Histogram"].flatMap(namesOf))
    assert.isAbove(targets.length, 30)
    for (const { expr, legendFormat } of targets) {
      const names = asked(expr)
      assert.isNotEmpty(names, expr)
      assert.deepStrictEqual(
        names.filter((name) => !known.has(name)),
        [],
        expr
      )
      const labels = new Set(names.flatMap(labelsOf))
      const used = [
        ...[...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list]) => list!.split(", ")),
        ...[...expr.matchAll(/\{([^}]*)\}/g)].flatMap(([, list]) =>
          [...list!.matchAll(/(\w+)=/g)].map(([, name]) => name!)
        )
      ]
      assert.isNotEmpty(used, expr)
      assert.deepStrictEqual(
        used.filter((label) => !labels.has(label)),
        [],
        expr
      )
      // Every metric of the panel is of the slot that is chosen, and what a legend shows is left by the sums.
      assert.lengthOf(expr.match(/\{slot=~"\$slot"\}/g) ?? [], names.length, expr)
      for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) assert.include(used, label, legendFormat)
    }
  })

  it("shows every metric but those that others tell of", () => {
    const shown = new Set(targets.flatMap(({ expr }) => asked(expr)).map((name) => name.replace(/_bucket$/, "")))
    assert.deepStrictEqual(
      [...Metrics.table.keys()].filter((name) => !shown.has(name)),
      [
        "replicant_spilled_bytes_total",
        "replicant_consumer_lagged_total",
        "replicant_received_lsn",
        "replicant_handled_lsn",
        "replicant_acknowledged_lsn",
        "replicant_flushed_lsn",
        "replicant_state_seconds",
        "replicant_since_handled_seconds"
      ]
    )
  })

  it("takes no rate of what goes down, and rates over an interval that fits the zoom", () => {
    const counters = new Set([...namesOf("Counter"), ...namesOf("Histogram")])
    for (const { expr } of targets) {
      for (const [, name, range] of expr.matchAll(/\b(?:rate|increase)\((replicant_\w+)\{[^}]*\}\[([^\]]*)\]/g)) {
        assert.isTrue(counters.has(name!), expr)
        assert.strictEqual(range, "$__rate_interval", expr)
      }
      for (const [, name] of expr.matchAll(/\b(?:deriv|predict_linear)\((replicant_\w+)/g)) {
        assert.isFalse(counters.has(name!), expr)
      }
    }
  })

  it.skipIf(process.env.CI === undefined && spawnSync("promtool", ["--version"]).error !== undefined)(
    "asks what Prometheus can read (promtool)",
    () => {
      const directory = Fs.mkdtempSync(Path.join(tmpdir(), "replicant-dashboard-"))
      try {
        const rules = targets.map(({ expr }, index) => ({
          record: `dashboard:query_${index}`,
          expr: expr.replaceAll("$slot", ".*").replaceAll("$__rate_interval", "1m")
        }))
        // JSON is YAML.
        const file = Path.join(directory, "queries.yml")
        Fs.writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }))
        const { status, stderr, stdout } = spawnSync("promtool", ["check", "rules", file], { encoding: "utf8" })
        assert.strictEqual(status, 0, stdout + stderr)
        assert.include(stdout, `${targets.length} rules found`)
      } finally {
        Fs.rmSync(directory, { recursive: true, force: true })
      }
    }
  )
})
