/** What a stream is doing with its connections; what else it does is in `stream/StreamState.ts`. */
import type * as Lsn from "../Lsn.ts"
import type { ReplicationError } from "../ReplicationError.ts"

/** One of the states of a stream: see `StreamState`. */
export type ConnectionState =
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "WaitingForSlot"; readonly activePid: number }
  | { readonly _tag: "WaitingForGap"; readonly reason: string; readonly consistentPoint: Lsn.Lsn }
  | { readonly _tag: "Streaming"; readonly systemId: string; readonly timeline: number }
  | { readonly _tag: "Stalled"; readonly reason: string; readonly remedy: string }
  | { readonly _tag: "Reconnecting"; readonly attempt: number; readonly cause: ReplicationError }
  | { readonly _tag: "Stopped" }
