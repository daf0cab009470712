/** A consumer of the soak as its driver has it: its slot, its proxy, its ledger, and the process of the moment. */

import { type ChildProcess, spawn } from "node:child_process"
import { appendFileSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { PgServerShape } from "@replicant/node/testing"
import { FaultProxy, type FaultProxyShape } from "@replicant/node/testing"
import { Effect, type Scope } from "effect"
import { eventually } from "../eventually.ts"
import { LedgerReader } from "./Ledger.ts"
import type { SoakConsumerOptions } from "./runSoakConsumer.ts"

const program = fileURLToPath(new URL("runSoakConsumer.ts", import.meta.url))

export interface SoakConsumer {
  readonly slot: string
  readonly by: SoakConsumerOptions["by"]
  readonly proxy: FaultProxyShape
  readonly ledger: LedgerReader
  readonly slowdown: string
  /** Sends a signal to the process, if it runs. */
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits for its end and starts another; gives how it ended. */
  readonly replace: Effect.Effect<number | NodeJS.Signals | null, unknown>
  /** Waits for its end. */
  readonly ended: Effect.Effect<number | NodeJS.Signals | null, unknown>
  /** How it ended, though nobody told it to; the end of its log says why. */
  readonly gaveUp: () => string | undefined
  /** Resident memory in bytes; 0 where the system does not tell. */
  readonly residentBytes: () => number
}

export interface SoakPlace {
  readonly server: PgServerShape
  readonly database: string
  readonly publication: string
  /** Where ledgers and logs go. */
  readonly directory: string
  /** Megabytes of heap that a consumer may have; Node's own limit unless told otherwise. */
  readonly heap: number | undefined
}

/** A consumer that runs from now on; the scope kills it. */
export const makeSoakConsumer = Effect.fnUntraced(function* (
  place: SoakPlace,
  by: SoakConsumerOptions["by"]
): Effect.fn.Return<SoakConsumer, unknown, Scope.Scope> {
  const { database, directory, heap, publication, server } = place
  const slot = `soak_${by}`
  yield* server.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`, database)
  const proxy = yield* FaultProxy.make(server)
  const file = (name: string) => join(directory, `${by}.${name}`)
  const options: SoakConsumerOptions = {
    url: server.url(database),
    host: proxy.host,
    port: proxy.port,
    slot,
    publication,
    by,
    ledger: file("ledger"),
    slowdown: file("slowdown")
  }
  const start = (): ChildProcess => {
    const limit = heap === undefined ? [] : [`--max-old-space-size=${heap}`]
    const child = spawn(process.execPath, [...limit, program, JSON.stringify(options)], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => appendFileSync(file("log"), text))
    return child
  }
  const how = (child: ChildProcess) => child.exitCode ?? child.signalCode
  let current = yield* Effect.acquireRelease(Effect.sync(start), () =>
    Effect.sync(() => void (how(current) === null && current.kill("SIGKILL")))
  )
  let isToldToEnd = false
  const ended = Effect.map(
    eventually(
      Effect.sync(() => (how(current) === null ? undefined : { how: how(current) })),
      { what: `the consumer by ${by} ended` }
    ),
    ({ how }) => how
  )
  return {
    slot,
    by,
    proxy,
    ledger: new LedgerReader(options.ledger),
    slowdown: options.slowdown,
    signal: (signal) =>
      Effect.sync(() => {
        if (signal === "SIGKILL" || signal === "SIGTERM") isToldToEnd = true
        current.kill(signal)
      }),
    ended,
    replace: Effect.tap(ended, () =>
      Effect.sync(() => {
        isToldToEnd = false
        current = start()
      })
    ),
    gaveUp: () =>
      isToldToEnd || how(current) === null
        ? undefined
        : `${how(current)}: ${readFileSync(file("log"), "utf8").slice(-2000)}`,
    residentBytes: () => {
      try {
        return Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${current.pid}/status`, "utf8"))?.[1] ?? 0) * 1024
      } catch {
        return 0
      }
    }
  }
})
