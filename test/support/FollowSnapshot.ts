/**
 * A snapshot under test: by itself, or in a fiber of its own with the stream after it, and what its handler saw so far.
 */
import {
  type Handler,
  LogicalStream,
  nextLsn,
  Pgoutput,
  type Row,
  type Snapshot,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Schedule, type Scope } from "effect"
import { eventually, patience } from "./eventually.ts"
import { walSender } from "./Follow.ts"
import type { Workspace } from "./Workspace.ts"
import { watchState } from "./watchState.ts"

export type Seen = Array<Snapshot.ChangeAfterSnapshot>

/** Of a stream of committed changes. */
export type SnapshotOptions = Omit<LogicalStream.Options, "inProgress">

/** A slot of the workspace's own with its publication. Tries again at once, so that tests need not wait. */
export const snapshotOptions = <Mode extends Snapshot.Mode>(
  workspace: Workspace,
  snapshot: Mode,
  pgoutput: Partial<Pgoutput.Options> = {}
): SnapshotOptions & { readonly snapshot: Mode } => ({
  slot: workspace.slot,
  plugin: Pgoutput.make({ publications: [workspace.publication], ...pgoutput }),
  timing: { acknowledgeDelay: "20 millis" },
  reconnect: Schedule.spaced("50 millis"),
  snapshot
})

/** Everything that a snapshot by itself hands over. */
export const takeSnapshot = Effect.fnUntraced(function* (
  workspace: Workspace,
  pgoutput: Partial<Pgoutput.Options> = {},
  layer: ReturnType<typeof walSender> = walSender(workspace)
): Effect.fn.Return<Seen, unknown> {
  const seen: Seen = []
  yield* withLogicalStream(snapshotOptions(workspace, "only", pgoutput), (change) =>
    Effect.sync((): Handler.Handled => void seen.push(change))
  ).pipe(Effect.provide(layer), Effect.timeout(patience))
  return seen
})

/** The rows among it. */
export const snapshotRows = (seen: ReadonlyArray<Snapshot.ChangeAfterSnapshot>): ReadonlyArray<Snapshot.Row> =>
  seen.flatMap((change) => (change._tag === "SnapshotRow" ? [change] : []))

/** A row as text, to be sorted and compared by. */
export const rowText = (row: Row): string =>
  JSON.stringify(row, (_, value) => (typeof value === "bigint" ? `${value}n` : value))

export interface SnapshotFollower<E> {
  readonly seen: Seen
  /** What the stream has done so far. */
  readonly states: ReadonlyArray<LogicalStream.StreamState>
  /** Waits until the handler has been given `count` of this kind. */
  readonly saw: (tag: Snapshot.ChangeAfterSnapshot["_tag"], count: number) => Effect.Effect<void, unknown>
  readonly stop: Effect.Effect<void>
  /** What it failed with. */
  readonly failure: Effect.Effect<Snapshot.Error | E, unknown>
}

/** Follows a workspace's publication from its snapshot on. */
export const followSnapshot = Effect.fnUntraced(function* <E = never>(
  workspace: Workspace,
  overrides: {
    readonly options?: Partial<SnapshotOptions> | undefined
    readonly layer?: ReturnType<typeof walSender> | undefined
    readonly handler?: ((change: Snapshot.ChangeAfterSnapshot) => Effect.Effect<Handler.Handled, E>) | undefined
  } = {}
): Effect.fn.Return<SnapshotFollower<E>, never, Scope.Scope> {
  const seen: Seen = []
  const handler = overrides.handler ?? ((change: Snapshot.ChangeAfterSnapshot) => Effect.succeed(nextLsn(change)))
  const options = { ...snapshotOptions(workspace, "initial"), ...overrides.options }
  const stream = yield* LogicalStream.make(options)
  const states = yield* watchState(stream.state)
  const run = stream.run((change) => {
    seen.push(change)
    return handler(change)
  })
  const fiber = yield* run.pipe(Effect.provide(overrides.layer ?? walSender(workspace)), Effect.forkScoped)
  return {
    seen,
    states,
    saw: (tag, count) =>
      Effect.raceFirst(
        eventually(
          Effect.sync(() => seen.filter((change) => change._tag === tag).length >= count),
          { what: `${count} of ${tag} arrived` }
        ),
        Fiber.join(fiber)
      ),
    stop: Fiber.interrupt(fiber),
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience))
  }
})
