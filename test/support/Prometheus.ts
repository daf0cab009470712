/**
 * A Prometheus of a test's own: Debian's `prometheus`, on a directory and a port of its own on 127.0.0.1, gone with its scope. It scrapes
 * and evaluates each second.
 */
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { Effect, Schema } from "effect"
import { eventually } from "./eventually.ts"

/** Whether this machine has it: Debian's package `prometheus`. */
export const hasPrometheus = spawnSync("prometheus", ["--version"]).status === 0

export interface PrometheusOptions {
  /** Rules, as YAML. */
  readonly rules: string
}

const Alerts = Schema.Struct({
  data: Schema.Struct({
    alerts: Schema.Array(
      Schema.Struct({
        labels: Schema.Record(Schema.String, Schema.String),
        state: Schema.Literals(["pending", "firing"])
      })
    )
  })
})

const Matrix = Schema.Struct({
  status: Schema.Literal("success"),
  data: Schema.Struct({
    result: Schema.Array(Schema.Struct({ values: Schema.Array(Schema.Tuple([Schema.Number, Schema.String])) }))
  })
})

/** Files that Prometheus reads appear whole. */
const write = (path: string, text: string) =>
  Effect.sync(() => {
    Fs.writeFileSync(`${path}.new`, text)
    Fs.renameSync(`${path}.new`, path)
  })

export const startPrometheus = Effect.fnUntraced(function* ({ rules }: PrometheusOptions) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-prometheus-"))),
    (made) => Effect.sync(() => Fs.rmSync(made, { recursive: true, force: true }))
  )
  const file = (name: string) => Path.join(directory, name)
  const job = { job_name: "replicant", file_sd_configs: [{ files: [file("targets.json")], refresh_interval: "1s" }] }
  // JSON is YAML.
  const config = {
    global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
    rule_files: [file("rules.yml")],
    scrape_configs: [job]
  }
  yield* write(file("rules.yml"), rules)
  yield* write(file("prometheus.yml"), JSON.stringify(config))
  yield* write(file("targets.json"), "[]")
  const args = [`--config.file=${file("prometheus.yml")}`, `--storage.tsdb.path=${file("data")}`]
  let said = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("prometheus", [...args, "--web.listen-address=127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] })
    ),
    (running) =>
      Effect.callback<void>((resume) => {
        if (running.exitCode !== null || running.signalCode !== null) return resume(Effect.void)
        running.once("exit", () => resume(Effect.void))
        running.kill("SIGKILL")
      })
  )
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text
  })
  const port = yield* eventually(
    Effect.sync(() => {
      if (child.exitCode !== null) throw new Error(`prometheus ended: ${said}`)
      return said.includes("ready to receive web requests")
        ? /msg="Listening on" address=127\.0\.0\.1:(\d+)/.exec(said)?.[1]
        : undefined
    }),
    { what: "Prometheus is ready" }
  )
  const get = (path: string) =>
    Effect.promise(async () => (await fetch(`http://127.0.0.1:${port}/api/v1/${path}`)).json() as Promise<unknown>)
  return {
    /** Scrapes these from now on: `127.0.0.1:9090`. */
    scrape: (targets: ReadonlyArray<string>) => write(file("targets.json"), JSON.stringify([{ targets }])),
    /** Alerts that fire, each as its name and the slot that it is of. */
    firing: Effect.map(get("alerts"), (found) =>
      Schema.decodeUnknownSync(Alerts)(found)
        .data.alerts.filter(({ state }) => state === "firing")
        .map(({ labels: { alertname, slot = "" } }) => `${alertname} ${slot}`.trim())
        .toSorted()
    ),
    /** All numbers that a query has come to since, in seconds of Unix time, each second. */
    numbers: (query: string, since: number) =>
      Effect.map(
        Effect.suspend(() => {
          const range = { query, start: String(since), end: String(Date.now() / 1000), step: "1" }
          return get(`query_range?${new URLSearchParams(range)}`)
        }),
        (found) =>
          Schema.decodeUnknownSync(Matrix)(found)
            .data.result.flatMap(({ values }) => values.map(([, value]) => Number(value)))
            .filter(Number.isFinite)
      )
  }
})
