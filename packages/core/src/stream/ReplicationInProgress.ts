/**
 * The service of a stream that delivers transactions in progress as they come. `Replication` delivers them committed.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import type { ChangeInProgress } from "../change/InProgress.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { StreamOptions } from "../replication/StreamOptions.ts"
import type { WalSender } from "../server/WalSender.ts"
import * as Replication from "./Replication.ts"

/** One slot, streamed as its transactions go on. */
export class ReplicationInProgress extends Context.Service<
  ReplicationInProgress,
  Pick<Replication.Replication["Service"], "acknowledge" | "acknowledgeThrough" | "progress" | "system"> & {
    /**
     * Everything, as it comes: whole transactions from `Begin` to `Commit`, and between them blocks of those in progress,
     * each change of which is a `Streamed`. Fails when the connection does; ends never. Can be run once.
     */
    readonly changes: Stream.Stream<ChangeInProgress, ReplicationError>
  }
>()("@replicant/core/ReplicationInProgress") {}

/** The service over a `WalSender`, for a plugin that is `streaming`. Building it connects. */
export const layer = (options: StreamOptions): Layer.Layer<ReplicationInProgress, ReplicationError, WalSender> =>
  Layer.effect(
    ReplicationInProgress,
    Effect.map(Replication.make(options, "deliver"), (replication) => ReplicationInProgress.of(replication))
  )
