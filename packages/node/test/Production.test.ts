/** What `ops/` has for whoever runs a stream in production, held to the metrics, to the runbook and to the tools that read it. */
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Metrics } from "@replicant/core/operations"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const read = (path: string) => Fs.readFileSync(Path.join(root, path), "utf8")
const rules = read("ops/alerts.yml")
const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name!)

/** Runs a tool of the system's, and gives what it says. */
const run = (command: string, ...args: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(command, args, { cwd: Path.join(root, "ops"), encoding: "utf8" })
  assert.strictEqual(status, 0, stdout + stderr)
  return stdout + stderr
}

/** Skipped by name where the machine has no such tool; under CI it is there. */
const withTool = (command: string) =>
  it.skipIf(process.env.CI === undefined && spawnSync(command, ["--version"]).error !== undefined)

describe("the alerts", () => {
  it("ask for metrics that there are", () => {
    const known = new Set(Metrics.table.keys())
    const asked = new Set([...rules.matchAll(/\breplicant_\w+/g)].map(([name]) => name))
    assert.isAbove(asked.size, 5)
    assert.deepStrictEqual(
      [...asked].filter((name) => !known.has(name)),
      []
    )
  })

  it("have a runbook each, to which they lead, and a test", () => {
    const headings = [...read("docs/production.md").matchAll(/^### (\w+)$/gm)].map(([, name]) => name)
    assert.deepStrictEqual(headings, alerts)
    for (const alert of alerts) {
      assert.include(rules, `runbook: docs/production.md#${alert.toLowerCase()}\n`)
      assert.include(read("ops/alerts.test.yml"), `alertname: ${alert}\n`)
    }
  })

  withTool("promtool")(
    "are fired when they should be and silent otherwise, as Prometheus reads them (promtool)",
    () => {
      assert.include(run("promtool", "check", "rules", "alerts.yml"), `${alerts.length} rules found`)
      assert.include(run("promtool", "test", "rules", "alerts.test.yml"), "SUCCESS")
    }
  )
})

describe("the health check of a container", () => {
  it("is well while the process answers, and else is not", async () => {
    const [, line = "[]"] = /^ +test: (\[.*\])$/m.exec(read("docs/production.md")) ?? []
    const [kind, command, flag, script = ""] = JSON.parse(line) as ReadonlyArray<string>
    assert.deepStrictEqual([kind, command, flag], ["CMD", "node", "-e"])
    let status = 200
    const asked: Array<string | undefined> = []
    const server = createServer(({ url }, response) => {
      asked.push(url)
      response.writeHead(status).end()
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const { port } = server.address() as AddressInfo
    const check = () =>
      new Promise<number | null>((resolve) => {
        const child = spawn(process.execPath, ["-e", script.replace(":9090", `:${port}`)], { stdio: "ignore" })
        child.once("exit", resolve)
      })
    try {
      assert.strictEqual(await check(), 0)
      status = 503
      assert.strictEqual(await check(), 1)
      assert.deepStrictEqual(asked, ["/livez", "/livez"])
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
    assert.strictEqual(await check(), 1)
  })
})

describe("the unit", () => {
  withTool("systemd-analyze")("is one that systemd takes (systemd-analyze)", () => {
    const directory = Fs.mkdtempSync(Path.join(tmpdir(), "replicant-unit-"))
    try {
      const unit = Path.join(directory, "orders.service")
      // The program must be there: the one that runs this test is.
      Fs.writeFileSync(unit, read("ops/orders.service").replace("/usr/bin/node", process.execPath))
      assert.strictEqual(run("systemd-analyze", "verify", unit), "")
    } finally {
      Fs.rmSync(directory, { recursive: true, force: true })
    }
  })
})
