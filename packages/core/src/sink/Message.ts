/** What a sink appends: a place, where it goes, and its text. And the event of which an encoder makes that text. */
import type * as Change from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type { SnapshotBeginning } from "../snapshot/SnapshotChange.ts"

/**
 * What happened: a row was `c`reated, `u`pdated, `d`eleted, or `r`ead by a snapshot; a table was `t`runcated; a `m`essage was
 * emitted; a transaction `e`nded; a snapshot `s`tarted or was completed; here is a `g`ap.
 */
export type Op = "c" | "u" | "d" | "r" | "t" | "m" | "e" | "s" | "g"

/** What an engine holds last, of whom. */
export interface Mark {
  /** Its place: text that sorts as messages were appended. */
  readonly id: string
  /** The cluster's, where it is known: `IdentifySystem.systemId`. */
  readonly systemId?: string | undefined
}

/** One message, ready to be appended. */
export interface Message extends Mark {
  readonly op: Op
  /** The stream, the subject, the topic or the file that it goes to. */
  readonly to: string
  /** The replica identity's values as a JSON array; `undefined` where nothing identifies a row, or it is of none. */
  readonly key: string | undefined
  /** The encoded change; `undefined` is a tombstone: of this key nothing is left. */
  readonly value: string | undefined
}

/** Where a change comes from. */
export interface Source {
  /** `undefined` for rows of a first copy. */
  readonly system: { readonly systemId: string; readonly timeline: number; readonly database: string } | undefined
  /** The slot that brought it. */
  readonly slot: string
}

/** The transaction that a change is of; of a snapshot's row its seam. */
export interface Origin {
  readonly lsn: Change.Begin["commitLsn"]
  readonly xid: number | undefined
  readonly time: Change.Begin["commitTime"] | undefined
}

/** What an encoder is given. */
export interface Event {
  readonly op: Op
  readonly id: string
  readonly source: Source
  readonly origin: Origin
  /** 0 for the transaction's first change, then 1, 2, …; `undefined` for what ends one or stands outside of any. */
  readonly ordinal: number | undefined
  /** Whether it is its transaction's last. */
  readonly isLast: boolean
  readonly relation: Relation | undefined
  /** The replica identity; `undefined` where nothing identifies a row. */
  readonly key: Change.Row | undefined
  readonly after: Change.Row | undefined
  /** The whole row before, where the server tells it (`REPLICA IDENTITY FULL`). */
  readonly before: Change.Row | undefined
  /** Columns that were left alone and not sent (TOAST). */
  readonly unchanged: ReadonlyArray<string>
  /** What else there is to tell, by `op`. */
  readonly detail?:
    | Change.Truncate
    | Change.Message
    | Change.Gap
    | { readonly _tag: "End"; readonly count: number }
    | { readonly _tag: "Snapshot"; readonly state: "started" | "resumed" | "completed"; readonly of: SnapshotBeginning }
    | { readonly _tag: "Table"; readonly state: "started" | "resumed" | "restarted" | "completed" }
    | undefined
}

/** Makes the text of a message. */
export type Encoder = (event: Event) => string

/** The version of {@link Op} and of what {@link headersOf} tells; encoders of one's own may have another. */
export const version = "1"

/** What is told beside the text, so that whoever filters need not parse it. */
export const headersOf = ({ id, op }: Message): ReadonlyArray<readonly [name: string, value: string]> => [
  ["replicant-id", id],
  ["replicant-op", op],
  ["replicant-v", version]
]
