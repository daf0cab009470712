/**
 * What of the client is under test: the real functions, and how they are put to use. A planted mistake replaces one of them,
 * or uses them otherwise.
 */
import { left } from "../../../src/rereading/Ledger.ts"
import { enter, next, note, resolve } from "../../../src/rereading/Phase.ts"

export interface Client {
  readonly next: typeof next
  readonly enter: typeof enter
  readonly note: typeof note
  readonly resolve: typeof resolve
  readonly left: typeof left
  /** Which keys are asked for that are to be read again: those that the snapshot sees settled. */
  readonly asksUnseen?: boolean | undefined
  /** Whether the table is let go before the mark is committed. */
  readonly unlocksEarly?: boolean | undefined
  /** Whether older transactions are those that ran when the table was described, and not at its beginning. */
  readonly asksEarly?: boolean | undefined
  /** Whether a mark is heeded whose try was given up. */
  readonly takesForgotten?: boolean | undefined
  /** Whether a chunk counts as durable where it is handed over. */
  readonly countsHandedOver?: boolean | undefined
  /** Whether an acknowledgement is passed on before what it settles is written down. */
  readonly savesLate?: boolean | undefined
  /** Whether nothing is written down of a table that is to be begun anew, until it is. */
  readonly savesNoVoid?: boolean | undefined
  /** Whether a beginning is passed over by the ledger. */
  readonly savesNoBeginning?: boolean | undefined
}

export const real: Client = { next, enter, note, resolve, left }
