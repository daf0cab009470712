/**
 * Names for what a stream delivers, for sinks that must recognise what they have: the same however often it comes, and as
 * text in the order of delivery.
 *
 * Of a transaction's changes the commit's place and theirs within it; of what ends a unit the place after its record. Of two
 * records none ends where another does, and a transaction's changes come after all that ends where its commit begins.
 */
import * as Lsn from "../Lsn.ts"
import type { Begin, Commit, Gap, Message, RelationChanged, TransactionChange, TwoPhaseChange } from "./Change.ts"
import type { StreamCommit, StreamPrepare } from "./StreamedEnd.ts"

/** A change that has a place of its own in its transaction. */
type Placed = {
  readonly _tag: Exclude<TransactionChange, RelationChanged | Message>["_tag"]
  readonly begin: Pick<Begin, "commitLsn">
  readonly ordinal: number
}

/** A message in a transaction, or alone. */
type Told = Pick<Message, "_tag" | "begin" | "ordinal" | "lsn">

/** What ends a unit. */
type Ended = Pick<Commit | TwoPhaseChange | StreamCommit | StreamPrepare, "_tag" | "endLsn">

/** The `ordinal`-th of a transaction, whose LSN is text already: it is the same for all of it. */
export const behind = (commitLsn: string, ordinal: number): string =>
  `${commitLsn}-${ordinal.toString(16).toUpperCase().padStart(8, "0")}`

/** The `ordinal`-th of a transaction. */
export const within = (commitLsn: Lsn.Lsn, ordinal: number): string => behind(Lsn.formatSortable(commitLsn), ordinal)

/**
 * The name of a change: `0000000001946FA8-00000002` within a transaction, `0000000001946FD8` for what ends one or stands
 * outside of any. It stays the same over reconnects and restarts, also where a transaction came in progress before, as long
 * as the stream is asked for the same: another publication, row filter or `messages` counts other changes.
 *
 * There is none of
 * - a `Begin`: the ids of its changes begin with its `commitLsn`, as `Lsn.formatSortable` has it;
 * - a `RelationChanged`: whether it is sent depends on where the stream began;
 * - a `Gap`: until it is acknowledged each connection finds another;
 * - a `Streamed` change and its kin: it has no place in commit order, and may never have one;
 * - all that is of a snapshot: a row is read as often as it takes, and its key names it.
 *
 * @example
 * changeId(change) // => "0000000001946FA8-00000002"
 */
export const changeId: {
  (change: Placed | Told | Ended): string
  (change: Begin | RelationChanged | Gap): undefined
  (change: Placed | Told | Ended | { readonly _tag: string }): string | undefined
} = ((change: Placed | Told | Ended): string | undefined => {
  switch (change._tag) {
    case "Insert":
    case "Update":
    case "Delete":
    case "Truncate":
    case "Origin":
      return within(change.begin.commitLsn, change.ordinal)
    case "Message":
      return change.begin === undefined
        ? Lsn.formatSortable(change.lsn)
        : within(change.begin.commitLsn, change.ordinal)
    case "Commit":
    case "Prepare":
    case "CommitPrepared":
    case "RollbackPrepared":
    case "StreamCommit":
    case "StreamPrepare":
      return Lsn.formatSortable(change.endLsn)
    default:
      return undefined
  }
}) as typeof changeId
