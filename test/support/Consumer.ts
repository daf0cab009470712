/** Consumers that are processes of their own (`runConsumer.ts`), and the ledgers they leave. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Lsn } from "@replicant/core"
import { Effect, type Scope } from "effect"
import { eventually } from "./eventually.ts"
import type { Workspace } from "./Workspace.ts"

const program = fileURLToPath(new URL("runConsumer.ts", import.meta.url))

/** What the program is told. Times are milliseconds. */
export interface ConsumerOptions {
  readonly url: string
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly slot: string
  readonly publication: string
  /** The path of the ledger. */
  readonly ledger: string
  /** A handler takes so long on average, half of it before the ledger is written. */
  readonly handlerMillis?: number | undefined
  /** Handlers wait until there is a file of this path. */
  readonly gate?: string | undefined
  /** The ledger tells the lengths of this column's values, not ids. */
  readonly lengthOf?: string | undefined
  readonly receiverTimeout?: number | undefined
  readonly shutdownTimeout?: number | undefined
  readonly settings?: Readonly<Record<string, string | number>> | undefined
}

/** One handled transaction. */
export interface Handled {
  readonly endLsn: Lsn.Lsn
  readonly ids: ReadonlyArray<number>
}

export interface Ledger {
  readonly path: string
  readonly read: Effect.Effect<ReadonlyArray<Handled>>
}

/** A ledger, and a gate that is closed until told otherwise. Both are gone with the scope. */
export const makeLedger: Effect.Effect<
  Ledger & { readonly gate: string; readonly openGate: Effect.Effect<void> },
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "replicant-ledger-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const path = join(directory, "ledger")
  const gate = join(directory, "gate")
  return {
    path,
    gate,
    openGate: Effect.promise(() => writeFile(gate, "")),
    read: Effect.promise(() => readFile(path, "utf8").catch(() => "")).pipe(
      Effect.map((text) =>
        text
          .split("\n")
          .slice(0, -1) // What follows the last break was cut by a kill.
          .map((line): Handled => {
            const [lsn = "", ids = ""] = line.split(" ")
            return { endLsn: Lsn.fromString(lsn)!, ids: ids === "" ? [] : ids.split(",").map(Number) }
          })
      )
    )
  }
})

export interface Consumer {
  readonly pid: number
  /** What it wrote so far. */
  readonly said: () => string
  /** Lets a loaded program begin. */
  readonly begin: Effect.Effect<void>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Its exit code, or the signal it died of, once it is gone and all that it said is here. */
  readonly ended: Effect.Effect<number | NodeJS.Signals | null, unknown>
  /** Bytes of memory at its most, once it has left in good order. */
  readonly peakBytes: () => number
  /** Milliseconds that it has worked, once it has left in good order. */
  readonly cpuMillis: () => number
}

const isRunning = (child: ChildProcess): boolean => child.exitCode === null && child.signalCode === null

/** Loads a consumer of the workspace's slot, which must be there. The scope kills it. */
export const loadConsumer = Effect.fnUntraced(function* (
  workspace: Workspace,
  ledger: Ledger,
  overrides: Partial<ConsumerOptions> = {},
  nodeOptions: ReadonlyArray<string> = []
): Effect.fn.Return<Consumer, unknown, Scope.Scope> {
  const { publication, slot } = workspace
  const options: ConsumerOptions = { url: workspace.url(), slot, publication, ledger: ledger.path, ...overrides }
  let said = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [...nodeOptions, program, JSON.stringify(options)], { stdio: "pipe" })),
    (running) =>
      Effect.sync(() => {
        if (isRunning(running)) running.kill("SIGKILL")
      })
  )
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text
    })
  }
  child.stdin.on("error", () => undefined)
  let isClosed = false
  child.once("close", () => {
    isClosed = true
  })
  yield* eventually(
    Effect.sync(() => said.includes("@loaded")),
    { what: "the consumer is loaded" }
  )
  return {
    pid: child.pid!,
    said: () => said,
    begin: Effect.sync(() => void child.stdin.write("\n")),
    kill: (signal) => Effect.sync(() => void child.kill(signal)),
    ended: eventually(
      Effect.sync(() => (isClosed ? { how: child.exitCode ?? child.signalCode } : undefined)),
      { what: "the consumer ended" }
    ).pipe(Effect.map(({ how }) => how)),
    peakBytes: () => Number(/@left (\d+)/.exec(said)?.[1] ?? Number.NaN),
    cpuMillis: () => Number(/@left \d+ (\d+)/.exec(said)?.[1] ?? Number.NaN) / 1000
  }
})

/** Loads a consumer and lets it begin, until it streams. */
export const startConsumer = Effect.fnUntraced(function* (
  workspace: Workspace,
  ledger: Ledger,
  overrides: Partial<ConsumerOptions> = {},
  nodeOptions: ReadonlyArray<string> = []
) {
  const consumer = yield* loadConsumer(workspace, ledger, overrides, nodeOptions)
  yield* consumer.begin
  yield* eventually(workspace.isStreaming(workspace.slot), { what: "the consumer streams" })
  return consumer
})
