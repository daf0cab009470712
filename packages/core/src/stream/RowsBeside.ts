/**
 * A stream with what belongs beside it: rows that are requested, tables that join, and what a first copy has it leave out. Both
 * who runs a handler and who takes one connection by hand stream through here.
 */
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import type { Change } from "../change/Change.ts"
import type { SeamFilter } from "../copying/SeamFilter.ts"
import { checkHistory } from "../copying/SeamHistory.ts"
import type { InvalidOption } from "../ReplicationError.ts"
import type * as WalProgress from "../replication/WalProgress.ts"
import { attach } from "../rereading/Attachment.ts"
import type { ControlState } from "../rereading/Control.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { SnapshotChange } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import type { Continuity } from "./ConnectionRun.ts"
import { type FirstCopy, lockMillis, seamReader, storeOfRequests } from "./FirstCopy.ts"
import { before, type Handler } from "./Handler.ts"
import { joiningTables } from "./JoiningTables.ts"
import type { Options } from "./LogicalStreamOptions.ts"
import { withRequests } from "./Requests.ts"

/** What there is beside a stream. */
export interface RowsBeside {
  readonly copy: FirstCopy
  /** How far the stream is. */
  readonly continuity: Pick<Continuity, "progress">
  /** What is requested of it, or why nothing can be; `undefined` where its handlers expect no rows. */
  readonly control: ControlState | InvalidOption | undefined
  /** Ends once it streams. */
  readonly isStreaming: Effect.Effect<unknown>
}

/** Everything that any stream delivers. */
type Anything = Change | SnapshotChange | TableSnapshotChange

/**
 * The options of a stream that has something to leave out: on each connection it is looked whether the server has what the
 * rows have, until the stream's own position says so.
 */
const withHistory = (options: Options, filter: SeamFilter, progress: WalProgress.WalProgressRef): Options => ({
  ...options,
  check: (connection) =>
    Effect.flatMap(Ref.get(progress), ({ durable }) =>
      Effect.andThen(
        durable >= filter.seam ? Effect.void : checkHistory(connection, filter),
        options.check?.(connection) ?? Effect.void
      )
    )
})

/** Runs it: `run` is the stream alone, of a handler of changes. */
export const withRowsBeside = <A, E, R>(
  { continuity, control, copy, isStreaming }: RowsBeside,
  filter: SeamFilter | undefined,
  handler: Handler<Anything, E, R>,
  run: (handler: Handler<Change, E, R>, options: Options) => Effect.Effect<A, SnapshotError | E, R | WalSender>
): Effect.Effect<A, SnapshotError | E, R | WalSender> => {
  const { coverage, options } = copy
  const { copy: how, plugin, slot } = options
  const requests = control === undefined || "_tag" in control ? undefined : control
  const joining =
    coverage === undefined || control === undefined
      ? undefined
      : joiningTables({ coverage, reading: control, isStreaming })
  const asked: Handler<Change, E, R> = requests === undefined ? handler : withRequests(requests, handler)
  const noticed = joining === undefined ? asked : joining.noticing(asked)
  const stream =
    filter === undefined
      ? run(noticed, options)
      : run(
          before(() => seamReader(filter), noticed),
          withHistory(options, filter, continuity.progress)
        )
  const followed = joining === undefined ? stream : Effect.raceFirst(stream, joining.follow)
  if (requests === undefined) return followed
  const checkpoints = storeOfRequests(copy)
  return attach(requests, { slot, plugin, lockTimeout: lockMillis(how), checkpoints }, followed)
}
