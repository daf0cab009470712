/**
 * A stream under test: `withLogicalStream` in a fiber of its own, and what its handler saw so far.
 */
import {
  type Change,
  type Handler,
  LogicalStream,
  nextLsn,
  Pgoutput,
  type Replication,
  type ReplicationError,
  WalSender,
  withLogicalStream
} from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import { type PgConfig, PgWalSender } from "@replicant/node"
import { Effect, Fiber, Redacted, type Scope } from "effect"
import { eventually, patience } from "./eventually.ts"
import type { Workspace } from "./Workspace.ts"
import { watchState } from "./watchState.ts"

/** The walsender of a workspace, by an ordinary URL. */
export const walSender = (workspace: Workspace, options: Partial<PgConfig.Options> = {}) =>
  PgWalSender.layer({ url: Redacted.make(workspace.url()), ...options })

/** A slot of the workspace's own, made at the first connection, with its publication. */
export const logicalOptions = (workspace: Workspace): Replication.Options => ({
  slot: workspace.slot,
  plugin: Pgoutput.make({ publications: [workspace.publication] }),
  createSlot: "permanent",
  timing: { acknowledgeDelay: "20 millis" }
})

/** Uses a replication connection to a workspace, which is closed afterwards. */
export const onConnection = <A, E, R>(
  workspace: Workspace,
  use: (connection: ReplicantConnection) => Effect.Effect<A, E, R>
) =>
  WalSender.pipe(
    Effect.flatMap((walSender) => walSender.connect),
    Effect.flatMap(use),
    Effect.scoped,
    Effect.provide(walSender(workspace))
  )

/** What a stream that begins now fails with. It acknowledges all that it is given until then. */
export const failureOf = (
  workspace: Workspace,
  options: Partial<Replication.Options> = {},
  layer = walSender(workspace)
) =>
  withLogicalStream({ ...logicalOptions(workspace), ...options }, (change) => Effect.succeed(nextLsn(change))).pipe(
    Effect.provide(layer),
    Effect.flip,
    Effect.timeout(patience)
  )

export interface Follower<E> {
  readonly changes: Array<Change>
  /** What it has done so far. */
  readonly states: ReadonlyArray<LogicalStream.StreamState>
  /** Waits until the handler has been given `count` changes of this kind. */
  readonly saw: (tag: Change["_tag"], count: number) => Effect.Effect<void, unknown>
  /** Ends the stream as a program would. */
  readonly stop: Effect.Effect<void>
  /** What the stream failed with. */
  readonly failure: Effect.Effect<ReplicationError | E, unknown>
}

/** Follows a workspace's publication. The handler decides what is acknowledged: everything, unless told otherwise. */
export const follow = Effect.fnUntraced(function* <E = never>(
  workspace: Workspace,
  overrides: {
    readonly options?: Partial<Replication.Options> | undefined
    readonly layer?: ReturnType<typeof walSender> | undefined
    readonly handler?: ((change: Change) => Effect.Effect<Handler.Handled, E>) | undefined
  } = {}
): Effect.fn.Return<Follower<E>, unknown, Scope.Scope> {
  const changes: Array<Change> = []
  const handler = overrides.handler ?? ((change: Change) => Effect.succeed(nextLsn(change)))
  const stream = yield* LogicalStream.make({ ...logicalOptions(workspace), ...overrides.options })
  const states = yield* watchState(stream.state)
  const run = stream.run((change) => {
    changes.push(change)
    return handler(change)
  })
  const fiber = yield* run.pipe(Effect.provide(overrides.layer ?? walSender(workspace)), Effect.forkScoped)
  yield* eventually(
    Effect.map(
      workspace.isStreaming(overrides.options?.slot ?? workspace.slot),
      (streaming) => streaming || fiber.pollUnsafe() !== undefined
    ),
    { what: "the stream began" }
  )
  return {
    changes,
    states,
    saw: (tag, count) =>
      Effect.raceFirst(
        eventually(
          Effect.sync(() => changes.filter((change) => change._tag === tag).length >= count),
          { what: `${count} changes of kind ${tag} arrived` }
        ),
        Fiber.join(fiber)
      ),
    stop: Fiber.interrupt(fiber),
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience))
  }
})

/** `Insert` rows, in order. */
export const insertedRows = (changes: ReadonlyArray<Change>) =>
  changes.flatMap((change) => (change._tag === "Insert" ? [change.row] : []))
