/** What a client process is told, what it answers, what it does with each row, and how it measures itself. */
import { writeFileSync } from "node:fs"
import { Session } from "node:inspector"
import { setTimeout as sleep } from "node:timers/promises"

/** One run: stream from `slot` until `changes` changes have been seen. */
export interface Task {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly slot: string
  readonly publication: string
  readonly changes: number
  /** The end of the backlog, for the one client that counts nothing. */
  readonly endLsn: string
  /** The name of what is drained, for the one client that declares its tables. */
  readonly workload?: string | undefined
  /** What is done with a row: counted, unless it is told otherwise. */
  readonly handler?: "count" | "latency" | "slow" | undefined
}

export interface Result {
  /** Counted by the client itself: fewer than the backlog holds means that it lost some. */
  readonly changes: number
  readonly seconds: number
  /** User and system time of the client process while streaming. */
  readonly cpuSeconds: number
  readonly maxRssBytes: number
  /** With the handler `latency`. */
  readonly latency?: Latency | undefined
}

/** Milliseconds from the writer's clock reading to the handler's. */
export interface Latency {
  readonly p50: number
  readonly p99: number
  readonly p999: number
  /** User and system microseconds of the client a commit. */
  readonly cpuMicros: number
}

/** The task of this process. */
export const task = (): Task => JSON.parse(process.env.BENCH_TASK ?? "{}") as Task

/** Starts V8's sampling profiler where a file for its profile is named; call the result to write it. */
const startProfiler = (file = process.env.BENCH_PROFILE): (() => void) => {
  if (file === undefined) return () => undefined
  const session = new Session()
  session.connect()
  session.post("Profiler.enable")
  session.post("Profiler.setSamplingInterval", { interval: 200 })
  session.post("Profiler.start")
  return () =>
    session.post("Profiler.stop", (error, { profile }) => {
      if (error !== null) throw error
      writeFileSync(file, JSON.stringify(profile))
    })
}

/** Starts the clock; call the result when the last change has been counted: it prints and ends the process. */
const startMeasure = (): ((changes: number, latency?: Latency) => never) => {
  const stopProfiler = startProfiler()
  const startTime = performance.now()
  const startCpu = process.cpuUsage()
  return (changes, latency) => {
    const seconds = (performance.now() - startTime) / 1000
    const { system, user } = process.cpuUsage(startCpu)
    const result: Result = {
      changes,
      seconds,
      cpuSeconds: (user + system) / 1e6,
      maxRssBytes: process.resourceUsage().maxRSS * 1024,
      latency
    }
    stopProfiler()
    process.stdout.write(`${JSON.stringify(result)}\n`)
    process.exit(0)
  }
}

/** What every client does with what it gets. */
export interface Handler {
  /**
   * Takes one inserted, updated or deleted row. A promise, which only the handler `slow` gives, is when it is done: a
   * client that can wait waits for it; for one that cannot, rows queue up here, as they would in any program.
   */
  readonly see: (row: unknown) => Promise<void> | undefined
  /** Has seen what belongs together, or may have: ends the process when that was the last. */
  readonly settle: () => void
}

/** Counts. What it costs is a call and an addition. */
const count = (wanted: number): Handler => {
  const finish = startMeasure()
  let seen = 0
  return {
    see: () => {
      seen++
      return undefined
    },
    settle: () => {
      if (seen >= wanted) finish(seen)
    }
  }
}

/** Compares the row's column `sent` with its own clock: `process.hrtime` is one clock for all processes of a machine. */
const latency = (wanted: number): Handler => {
  const finish = startMeasure()
  const nanos: Array<number> = []
  // The first tenth warms up: the client's code is not compiled yet.
  const cold = Math.floor(wanted / 10)
  let startCpu = process.cpuUsage()
  return {
    see: (row) => {
      if (nanos.length === cold) startCpu = process.cpuUsage()
      nanos.push(Number(process.hrtime.bigint() - BigInt((row as { readonly sent: string | bigint }).sent)))
      return undefined
    },
    settle: () => {
      if (nanos.length < wanted) return
      const { system, user } = process.cpuUsage(startCpu)
      const warm = nanos.slice(cold).toSorted((a, b) => a - b)
      const quantile = (q: number): number => warm[Math.min(warm.length - 1, Math.floor(warm.length * q))]! / 1e6
      const cpuMicros = (user + system) / warm.length
      finish(nanos.length, { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), cpuMicros })
    }
  }
}

/** Takes a millisecond a row, one after the other, until it is told to stop. */
const slow = (): Handler => {
  const finish = startMeasure()
  const queue: Array<{ readonly row: unknown; readonly done: () => void }> = []
  let at = 0
  let seen = 0
  let isWorking = false
  const work = async (): Promise<void> => {
    isWorking = true
    while (at < queue.length) {
      await sleep(1)
      queue[at++]!.done()
      seen++
      if (at === 1024) {
        queue.splice(0, at)
        at = 0
      }
    }
    queue.length = 0
    at = 0
    isWorking = false
  }
  process.once("SIGTERM", () => finish(seen))
  return {
    see: (row) =>
      new Promise((done) => {
        queue.push({ row, done })
        if (!isWorking) void work()
      }),
    settle: () => undefined
  }
}

/** The handler this process is to use. Its clock starts now. */
export const startHandler = (): Handler => {
  const { changes, handler } = task()
  if (handler === "latency") return latency(changes)
  return handler === "slow" ? slow() : count(changes)
}
