/** A dead letter: a change that waits, what it failed of, and how often it was tried. */
import * as Schema from "effect/Schema"
import { changeId } from "../change/ChangeId.ts"
import type { Relation } from "../change/Relation.ts"
import { errorId, logText } from "../ErrorForm.ts"
import * as Lsn from "../Lsn.ts"
import { asCame } from "./ChangeKey.ts"

/** A letter could not be stored, looked for or dropped. No row value is in this error. */
export class DeadLettersError extends Schema.TaggedError<DeadLettersError>(errorId("DeadLettersError"))(
  "DeadLettersError",
  {
    /**
     * `encode`: the change holds what no store can keep. `own`: another program parks there now. Nothing is gained by another attempt
     * then.
     */
    during: Schema.Literals(["open", "own", "encode", "park", "find", "list", "retry", "drop", "clear"]),
    problem: Schema.String
  }
) {
  get remedy(): string {
    switch (this.during) {
      case "encode":
        return "park before the change is typed, or give Handler.park the declared tables: tables"
      case "own":
        return "let one program at a time park in a file"
      default:
        return "see that the store of dead letters can be reached and written to: nothing is acknowledged meanwhile"
    }
  }
  get isRetryable(): boolean {
    return this.during !== "encode" && this.during !== "own"
  }
  override get message(): string {
    return `cannot ${this.during} dead letters: ${logText(this.problem)}`
  }
}

/**
 * What a letter waits for. `failed`: for somebody who decides. `waiting`: it was never tried, since an earlier change of its row is
 * parked; it is handled once that is gone. `marked`: somebody has decided that it is to be tried again.
 */
export const LetterState = Schema.Literals(["failed", "waiting", "marked"])
export type LetterState = typeof LetterState.Type

/** By what a letter is found. */
export interface LetterName {
  /** The slot that brought it. */
  readonly slot: string
  /**
   * Its `changeId`; of a row of a snapshot the place of that and a number made of its key. As text in the order in which changes
   * are delivered, and so are letters retried.
   */
  readonly id: string
}

/** A letter, without the change. */
export interface Letter extends LetterName {
  readonly state: LetterState
  /** The kind of the change: `Insert`, `Update`, … */
  readonly kind: string
  /** The relation's schema and name, as JSON writes two texts; `undefined` for a message. */
  readonly table: string | undefined
  /** The rows that it is of: later changes of any of them are parked behind it. They hold key values. */
  readonly keys: ReadonlyArray<string>
  /** What it failed of last; `Follows` where it was not tried. The message may hold values of the row. */
  readonly cause: { readonly tag: string; readonly message: string }
  /** How often it was tried, retries counted. */
  readonly attempts: number
  /** When it was parked first and last, Unix milliseconds. */
  readonly firstAt: number
  readonly lastAt: number
}

/** A change that is parked. */
export interface DeadLetter extends Letter {
  readonly change: unknown
}

/** One text for both names: neither can hold a zero. */
export const nameText = ({ id, slot }: LetterName): string => `${slot}\u0000${id}`

/** What is looked at of anything that can be parked. */
interface Parked {
  readonly _tag: string
  readonly relation?: Relation
  readonly snapshot?: { readonly consistentPoint: Lsn.Lsn }
}

/** FNV-1a, of 32 bits. */
const fnv = (text: string, basis: number): string => {
  let hash = basis
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, "0")
}

/**
 * What names the letter of a change. A row of a snapshot has no place of its own, and is told by its key: as a number, since ids are
 * shown where no values are.
 */
export const letterId = (change: unknown, keys: ReadonlyArray<string>): string => {
  const parked: Parked = asCame(change)
  const id = changeId(parked)
  if (id !== undefined) return id
  const text = JSON.stringify(keys)
  const at = Lsn.formatSortable(parked.snapshot?.consistentPoint ?? Lsn.zero)
  // Before all that is committed from there on.
  return `${at}-!${fnv(text, 0x811c9dc5)}${fnv(text, 0x050c5d1f)}`
}

/** The kind and the table of a change. */
export const subjectOf = (change: unknown): Pick<Letter, "kind" | "table"> => {
  const { _tag, relation }: Parked = asCame(change)
  return { kind: _tag, table: relation === undefined ? undefined : JSON.stringify([relation.schema, relation.name]) }
}
