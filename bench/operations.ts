/**
 * What it costs to be watched: `/metrics` beside a stream at full speed, the memory of the page over hours, a doctor over thousands of
 * tables. How to read the figures is in README.md.
 *
 * node bench/operations.ts [--rounds 5] [--scale 1] [--only scrape,page,doctor] [--bin FILE] [--json FILE]
 *
 * `--bin` is the command that is the doctor: this checkout's sources, which take a second longer to load than what is built.
 */
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { type AddressInfo, createServer as createSocket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import { chromium } from "playwright-core"
import * as PageText from "../packages/core/src/operations/Page.ts"
import { script } from "../packages/core/src/operations/PageScript.ts"
import {
  type Client,
  connectionTask,
  createSlot,
  dropSlot,
  line,
  median,
  serverSettings,
  startClient,
  withDatabase
} from "./Clients.ts"
import type { Result } from "./Measure.ts"
import { workloads } from "./Workload.ts"

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    scale: { type: "string", default: "1" },
    only: { type: "string", default: "scrape,page,doctor" },
    bin: { type: "string", default: fileURLToPath(new URL("../packages/node/src/bin.ts", import.meta.url)) },
    json: { type: "string" }
  }
})

const rounds = Number(flags.rounds)
const scale = Number(flags.scale)
const database = "bench_operations"
const figures: Record<string, unknown> = {}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const socket = createSocket().listen(0, "127.0.0.1", () => {
      const { port } = socket.address() as AddressInfo
      socket.close(() => resolve(port))
    })
  })

/** Milliseconds until the metrics are there, whole; `undefined` where nobody listens yet, or any more. */
const scrape = async (port: number): Promise<number | undefined> => {
  const began = performance.now()
  try {
    await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return performance.now() - began
  } catch {
    return undefined
  }
}

/** Processor milliseconds of a process's threads. */
const cpuMillis = (pid: number): number => {
  const threads = readdirSync(`/proc/${pid}/task`)
  const nanos = threads.map((id) => Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, "utf8").split(" ")[0]))
  return nanos.reduce((sum, each) => sum + each, 0) / 1e6
}

const operated = (port: number): Client => ({ name: "operated", file: "operated.ts", mode: String(port) })

/** One drain, with a scrape each second or without any. */
const drain = async (task: Parameters<typeof startClient>[1], isScraped: boolean) => {
  const port = await freePort()
  const run = startClient(operated(port), task)
  const scrapes: Array<number> = []
  let isOver = false
  const scraping = (async () => {
    while (isScraped && !isOver) {
      const took = await scrape(port)
      if (took !== undefined && !isOver) scrapes.push(took)
      await sleep(took === undefined ? 20 : 1000)
    }
  })()
  const outcome = await run.outcome
  isOver = true
  await scraping
  if (typeof outcome === "string") throw new Error(outcome)
  return { outcome, scrapes }
}

/** For so many seconds each. */
const idleSeconds = Math.max(2, Math.round(30 * Math.min(1, scale)))

/** What one scrape takes of the process that is scraped: one after the other, and one a second, as Prometheus does. */
const costOfScrape = async (task: Parameters<typeof startClient>[1]) => {
  const port = await freePort()
  const run = startClient(operated(port), task)
  while ((await scrape(port)) === undefined) await sleep(50)
  await sleep(2000)
  const spent = async (use: () => Promise<unknown>) => {
    const before = cpuMillis(run.pid)
    await use()
    return cpuMillis(run.pid) - before
  }
  const idle = await spent(() => sleep(idleSeconds * 1000))
  const seldom = await spent(async () => {
    for (let n = 0; n < idleSeconds; n++) await Promise.all([scrape(port), sleep(1000)])
  })
  const times: Array<number> = []
  const often = await spent(async () => {
    for (let n = 0; n < 1000; n++) times.push((await scrape(port)) ?? 0)
  })
  run.stop()
  await run.outcome
  return { cpuMillis: often / 1000, cpuMillisOnceASecond: (seldom - idle) / idleSeconds, millis: median(times) }
}

const scrapes = Effect.fnUntraced(function* (server: PgServer["Service"]) {
  const [narrow] = workloads(4 * scale)
  const { changes, load, schema } = narrow!
  const task = { ...connectionTask(server, database), changes }
  const names = Array.from({ length: rounds }, (_, round) => [`plain_${round}`, `scraped_${round}`] as const)
  const draining = Effect.gen(function* () {
    yield* createSlot(server, "idle", database)
    const cost = yield* Effect.promise(() => costOfScrape({ ...task, slot: "idle" }))
    yield* dropSlot(server, "idle", database)
    for (const slot of names.flat()) yield* createSlot(server, slot, database)
    for (const statement of load) yield* server.query(statement, database)
    const plain: Array<Result> = []
    const scraped: Array<Result> = []
    const times: Array<number> = []
    for (const [round, [without, with_]] of names.entries()) {
      for (const slot of round % 2 === 0 ? [without, with_] : [with_, without]) {
        const { outcome, scrapes } = yield* Effect.promise(() => drain({ ...task, slot }, slot === with_))
        ;(slot === with_ ? scraped : plain).push(outcome)
        times.push(...scrapes)
        yield* dropSlot(server, slot, database)
      }
    }
    return { cost, plain, scraped, times }
  })
  const { cost, plain, scraped, times } = yield* withDatabase(server, database, [schema], draining)
  const rate = (results: ReadonlyArray<Result>) =>
    median(results.map(({ changes, seconds }) => changes / seconds / 1000))
  const cpu = (results: ReadonlyArray<Result>) => median(results.map((result) => result.cpuSeconds))
  figures.scrape = { cost, plain, scraped, times }
  console.log(line(`${changes} narrow rows`, "k rows/s", "CPU s"))
  console.log(line("  not scraped", rate(plain).toFixed(0), cpu(plain).toFixed(2)))
  console.log(line("  scraped each second", rate(scraped).toFixed(0), cpu(scraped).toFixed(2)))
  console.log(line("one scrape, milliseconds", "median", "most"))
  console.log(line(`  at full speed, ${times.length} of them`, median(times).toFixed(1), Math.max(...times).toFixed(1)))
  console.log(line("  of an idle stream", cost.millis.toFixed(1)))
  console.log(line("CPU milliseconds of one scrape", "one a second", "one by one"))
  console.log(line("", cost.cpuMillisOnceASecond.toFixed(2), cost.cpuMillis.toFixed(2)))
})

/** What a stream might tell at second `n`: each second something else, and a new failure each minute. */
const pictureAt = (n: number): string => {
  const status = n % 60 < 50 ? "ok" : "degraded"
  const streams = ["orders", "items", "customers"].map((slot, index) => ({
    slot,
    hasDoctor: true,
    health: {
      status,
      since: 0,
      reasons: status === "ok" ? [] : [{ code: "Behind", status, since: n, says: `second ${n}` }]
    },
    seen: {
      at: n * 1000,
      state: "Streaming",
      lagSeconds: (n + index) % 30,
      lagBytes: 1000 * ((n * 7919) % 5000),
      pending: n % 100,
      acknowledged: `0/${(0x1000000 + n * 4096).toString(16).toUpperCase()}`,
      handlingSeconds: n % 3,
      lastFailure: {
        tag: "ConnectionError",
        message: `the connection was lost in minute ${Math.floor(n / 60)}`,
        agoSeconds: n % 60
      }
    },
    budget: { level: "ok", retainedBytes: n * 1000, writtenPerSecond: n % 1000, unseenMillis: 0 }
  }))
  return `data: ${JSON.stringify({ at: n * 1000, status, streams })}\n\n`
}

const seconds = 36_000

/** The page, told of ten hours as fast as it takes them. */
const page = async () => {
  let shown = 0
  /** The second that is measured next: nothing is told beyond it before. */
  let until = 0
  const server = createServer(async (request, response) => {
    const types = {
      "/": "text/html",
      "/page.css": "text/css",
      "/page.js": "text/javascript",
      "/events": "text/event-stream"
    }
    const url = request.url as keyof typeof types
    response.writeHead(200, { "content-type": types[url] ?? "text/plain" })
    if (url !== "/events") {
      response.end({ "/": PageText.html, "/page.css": PageText.css, "/page.js": script }[url])
      return
    }
    for (let n = 0; n < seconds; n++) {
      if (!response.write(pictureAt(n))) await new Promise((resolve) => response.once("drain", resolve))
      // No more than a little ahead of what is shown.
      while (n - shown > 200 || n >= until) await sleep(1)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] })
  try {
    const tab = await browser.newPage()
    const protocol = await tab.context().newCDPSession(tab)
    await tab.exposeFunction("shown", (count: number) => {
      shown = count
    })
    // Counts what comes, and says so now and then.
    await tab.addInitScript(`
      const Source = EventSource
      let count = 0
      EventSource = class extends Source {
        constructor(url) { super(url); this.addEventListener("message", () => { if (++count % 50 === 0) shown(count) }) }
      }`)
    await tab.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
    const samples: Array<{ readonly hours: number; readonly kilobytes: number; readonly nodes: number }> = []
    for (const next of [600, 3600, 7200, 18_000, seconds]) {
      until = next
      while (shown < next) await sleep(20)
      // What is gone from the page is given back by and by.
      for (let n = 0; n < 5; n++) await protocol.send("HeapProfiler.collectGarbage")
      const { usedSize } = await protocol.send("Runtime.getHeapUsage")
      const { nodes } = await protocol.send("Memory.getDOMCounters")
      samples.push({ hours: shown / 3600, kilobytes: Math.round(usedSize / 1000), nodes })
    }
    figures.page = samples
    console.log(line("the page, three streams", "hours", "kB of heap", "nodes"))
    for (const { hours, kilobytes, nodes } of samples) console.log(line("", hours.toFixed(2), kilobytes, nodes))
  } finally {
    await browser.close()
    server.closeAllConnections()
    server.close()
  }
}

const doctor = Effect.fnUntraced(function* (server: PgServer["Service"]) {
  const tables = Math.max(10, Math.round(2000 * scale))
  const columns = Array.from({ length: 9 }, (_, n) => `c${n} ${["int", "text", "numeric", "timestamptz"][n % 4]}`).join(
    ", "
  )
  const make = `DO $$ BEGIN FOR n IN 1..${tables} LOOP
    EXECUTE format('CREATE TABLE t_%s (id bigint PRIMARY KEY, ${columns})', n); END LOOP; END $$`
  for (const name of ["bench_source", "bench_target"]) {
    yield* server.query(`CREATE DATABASE ${name}`)
    yield* server.query(make, name)
  }
  yield* server.query("CREATE PUBLICATION pub FOR ALL TABLES", "bench_source")
  const environment = { ...process.env, DATABASE_URL: server.url("bench_source") }
  const look = (...args: ReadonlyArray<string>) => {
    const began = performance.now()
    const { status, stderr, stdout } = spawnSync(process.execPath, [flags.bin, "doctor", "--json", ...args], {
      env: environment,
      encoding: "utf8",
      maxBuffer: 2 ** 28
    })
    if (status !== 0 && status !== 1) throw new Error(stderr)
    return {
      seconds: (performance.now() - began) / 1000,
      checked: (JSON.parse(stdout).checked as ReadonlyArray<string>).length
    }
  }
  const publication = ["--publication", "pub"]
  const ways = [
    ["the source", () => look(...publication)],
    ["the source, by --to the target too", () => look(...publication, "--to", server.url("bench_target"))]
  ] as const
  console.log(line(`a doctor over ${tables} tables`, "median s", "most s", "checks"))
  for (const [what, way] of ways) {
    const looks = Array.from({ length: rounds }, way)
    const times = looks.map(({ seconds }) => seconds)
    figures[`doctor: ${what}`] = looks
    console.log(line(`  ${what}`, median(times).toFixed(2), Math.max(...times).toFixed(2), looks[0]!.checked))
  }
})

const only = flags.only.split(",")

const program = Effect.gen(function* () {
  const server = yield* PgServer
  if (only.includes("scrape")) yield* scrapes(server)
  if (only.includes("page")) yield* Effect.promise(page)
  if (only.includes("doctor")) yield* doctor(server)
})

await Effect.runPromise(program.pipe(Effect.provide(PgServer.layer({ settings: serverSettings })), Effect.scoped))
if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(figures, null, 2)}\n`)
