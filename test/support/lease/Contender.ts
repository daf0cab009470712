/** Processes that would follow one slot, each over a network of its own, and the ledger that they share. */
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { FaultProxy, type FaultProxyShape } from "@replicant/node/testing"
import { Effect, type Scope } from "effect"
import { eventually } from "../eventually.ts"
import { type Replicant, startReplicant } from "../Replicant.ts"
import type { Workspace } from "../Workspace.ts"

export interface ContenderOptions {
  readonly name: string
  readonly url: string
  /** Of its proxy. */
  readonly port: number
  readonly slot: string
  readonly publication: string
  readonly ledger: string
  /** Milliseconds. */
  readonly term: number
}

/** A transaction that somebody has handled. */
export interface Entry {
  readonly name: string
  /** When, by {@link systemMillis}. */
  readonly at: number
  readonly ids: ReadonlyArray<number>
}

/** Milliseconds of a clock that all processes of this machine share, and nobody sets. */
export const systemMillis = (): number => Number(process.hrtime.bigint() / 1_000_000n)

export interface Ledger {
  readonly path: string
  readonly read: () => ReadonlyArray<Entry>
}

export const makeLedger: Effect.Effect<Ledger, never, Scope.Scope> = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "replicant-lease-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const path = join(directory, "ledger")
  let size = 0
  let known: ReadonlyArray<Entry> = []
  return {
    path,
    read: () => {
      const bytes = (() => {
        try {
          return readFileSync(path)
        } catch {
          return Buffer.alloc(0)
        }
      })()
      // What follows the last break is being written.
      const end = bytes.lastIndexOf(10) + 1
      const fresh = bytes.subarray(size, end).toString().split("\n").slice(0, -1)
      size = end
      known = [
        ...known,
        ...fresh.map((line): Entry => {
          const [name = "", at = "", ids = ""] = line.split(" ")
          return { name, at: Number(at), ids: ids === "" ? [] : ids.split(",").map(Number) }
        })
      ]
      return known
    }
  }
})

export interface Contender extends Pick<Replicant, "kill" | "ended"> {
  readonly name: string
  /** The way that it takes to the server. */
  readonly proxy: FaultProxyShape
  /** The states of its lease so far, by their tags. */
  readonly states: () => ReadonlyArray<string>
  /** Waits until its lease is in that state, from its `since`th state on. */
  readonly becomes: (tag: "Held" | "Waiting" | "Lost", since?: number) => Effect.Effect<void, unknown>
}

const program = fileURLToPath(new URL("runContender.ts", import.meta.url))

/** Starts a contender of the workspace's slot, which must be there. The scope kills it. */
export const startContender = Effect.fnUntraced(function* (
  workspace: Workspace,
  ledger: Ledger,
  { name, term }: Pick<ContenderOptions, "name" | "term">
): Effect.fn.Return<Contender, unknown, Scope.Scope> {
  const proxy = yield* FaultProxy.make(workspace.connection)
  const { publication, slot } = workspace
  const options: ContenderOptions = {
    name,
    url: workspace.url(),
    port: proxy.port,
    slot,
    publication,
    ledger: ledger.path,
    term
  }
  const running = yield* startReplicant([JSON.stringify(options)], {}, program)
  const states = () => [...running.stdout().matchAll(/^@(\w+)$/gm)].map((match) => match[1]!)
  return {
    ...running,
    name,
    proxy,
    states,
    becomes: (tag, since = 0) =>
      Effect.asVoid(
        eventually(
          Effect.sync(() => states().slice(since).includes(tag)),
          { what: `the lease of ${name} is ${tag}; it said ${running.stderr()}` }
        )
      )
  }
})
