/** The program `replicant` as its user has it: a process of its own, what it wrote so far, and its exit code. */
import { type ChildProcessByStdio, spawn } from "node:child_process"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import { eventually, type NeverHappened } from "./eventually.ts"

const bin = fileURLToPath(new URL("../../packages/node/src/bin.ts", import.meta.url))

export interface Ended {
  /** The exit code, or the signal that killed it. */
  readonly code: number | NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Replicant {
  readonly process: ChildProcessByStdio<null, Readable, Readable>
  readonly stdout: () => string
  readonly stderr: () => string
  /** Standard output's lines so far, parsed. */
  readonly lines: () => ReadonlyArray<Record<string, unknown>>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended, NeverHappened>
}

/** Our own environment without what would name another server, or colour. */
const environment = (extra: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^PG|^DATABASE_URL$|COLOR/.test(name))),
  ...extra
})

/** Starts the program, or another module of ours in its place; the scope kills it if it still runs, and waits until it is gone. */
export const startReplicant = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  module: string = bin
): Effect.fn.Return<Replicant, never, Scope.Scope> {
  let stdout = ""
  let stderr = ""
  let isClosed = false
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [module, ...args], { env: environment(env), stdio: ["ignore", "pipe", "pipe"] })
    ),
    (running) =>
      Effect.callback<void>((resume) => {
        if (running.exitCode !== null || running.signalCode !== null) return resume(Effect.void)
        running.once("exit", () => resume(Effect.void))
        running.kill("SIGKILL")
      })
  )
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
  })
  child.on("close", () => {
    isClosed = true
  })
  return {
    process: child,
    stdout: () => stdout,
    stderr: () => stderr,
    lines: () =>
      stdout
        .split("\n")
        .slice(0, -1) // What follows the last break is not a whole line yet.
        .map((line) => JSON.parse(line)),
    kill: (signal) => Effect.sync(() => void child.kill(signal)),
    ended: eventually(
      Effect.sync(() => (isClosed ? { code: child.exitCode ?? child.signalCode, stdout, stderr } : undefined)),
      { what: `replicant ${args.join(" ")} ended` }
    )
  }
})

/** Runs the program to its end. */
export const replicant = (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Effect.Effect<Ended, NeverHappened> =>
  Effect.scoped(Effect.flatMap(startReplicant(args, env), (running) => running.ended))
