/** What a client process is told, what it answers, and how it measures itself. */

/** One run: drain `slot` until `changes` changes have been counted. */
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
}

export interface Result {
  /** Counted by the client itself: fewer than the backlog holds means that it lost some. */
  readonly changes: number
  readonly seconds: number
  /** User and system time of the client process while draining. */
  readonly cpuSeconds: number
  readonly maxRssBytes: number
}

/** The task of this process. */
export const task = (): Task => JSON.parse(process.env.BENCH_TASK ?? "{}") as Task

/** Starts the clock; call the result when the last change has been counted: it prints and ends the process. */
export const startMeasure = (): ((changes: number) => never) => {
  const startTime = performance.now()
  const startCpu = process.cpuUsage()
  return (changes) => {
    const seconds = (performance.now() - startTime) / 1000
    const { system, user } = process.cpuUsage(startCpu)
    const result: Result = {
      changes,
      seconds,
      cpuSeconds: (user + system) / 1e6,
      maxRssBytes: process.resourceUsage().maxRSS * 1024
    }
    process.stdout.write(`${JSON.stringify(result)}\n`)
    process.exit(0)
  }
}
