/**
 * Mistakes that a reader of tables beside their stream may make, each planted into the real functions or into how they are put
 * to use, to see the checker find it. The comments say what each looks like from outside.
 */
import { type Client, real } from "./Client.ts"
import type { Fault, Scenario, Violation } from "./World.ts"

export interface Mistake {
  readonly what: string
  readonly law: Violation["law"]
  /** A short one that shows it. */
  readonly scenario: Scenario
  readonly client: Client
}

type Next = Client["next"]

const mistake = (
  what: string,
  law: Violation["law"],
  [rows, script, ...faults]: readonly [rows: string, script: string, ...faults: ReadonlyArray<Fault>],
  changes: Partial<Client>,
  more: Partial<Scenario> = {}
): Mistake => ({
  what,
  law,
  scenario: { rows, script, faults, isPrompt: true, ...more },
  client: { ...real, ...changes }
})

/** A `next` that is wrong about some. */
const nextBut = (wrong: (...args: Parameters<Next>) => ReturnType<Next> | undefined): Partial<Client> => ({
  next: (phase, event) => wrong(phase, event) ?? real.next(phase, event)
})

export const mistakes: ReadonlyArray<Mistake> = [
  // A commit is streamed before it is seen: the old row is put over it, for good.
  mistake(
    "a first chunk that does not await older transactions",
    "completed",
    ["a", "ua"],
    nextBut((phase, event) => {
      if (event._tag !== "Began") return undefined
      const begun = real.next(phase, event)
      if (begun._tag === "AwaitingOlder") real.enter(begun)
      return real.next(begun, { _tag: "Settled" })
    })
  ),
  // The same where a pause has ended.
  mistake(
    "a chunk after a pause that does not await older transactions",
    "completed",
    ["a", "ua", "Pause"],
    nextBut((phase, event) => {
      if (event._tag !== "Followed" || phase._tag !== "Lost") return undefined
      phase.touched.follow()
      return { ...phase, _tag: "Reading" }
    })
  ),
  // The same, for those that began while the mark was on its way.
  mistake("older transactions asked for before the table begins", "completed", ["a", "ua"], { asksEarly: true }),
  // What was noted is gone, and what is read is handed over as if nothing had been.
  mistake(
    "a chunk that is handed over though its request was paused",
    "completed",
    ["a", "ua", "Pause"],
    nextBut((phase, event) => {
      if (event._tag !== "Lost" || phase._tag !== "Reading") return undefined
      phase.touched.follow()
      return phase
    })
  ),
  // The same where memory has an end.
  mistake(
    "a chunk that is handed over though more was told than is kept",
    "completed",
    ["a", "ua+ua"],
    nextBut((phase, event) => {
      if (event._tag !== "Lost" || phase._tag !== "Reading" || !phase.touched.isLost) return undefined
      phase.touched.follow()
      return phase
    }),
    { maxBytes: 150 }
  ),
  // Changes are missing that nobody will tell any more.
  mistake(
    "a table that goes on behind a gap",
    "completed",
    ["ab", "ua", "Gap"],
    nextBut((phase, event) => (event._tag === "Voided" ? real.next(phase, { _tag: "Lost" }) : undefined))
  ),
  mistake(
    "a table that an earlier process had begun, and that goes on behind a gap",
    "completed",
    ["a", "ua", "Crash", "Gap"],
    nextBut((phase, event) => (event._tag === "Voided" && phase._tag === "Kept" ? phase : undefined))
  ),
  mistake("a gap that another process knows nothing of", "completed", ["a", "ua", "Gap", "Crash"], {
    savesNoVoid: true
  }),
  // A column is added, and filled where no record tells of it.
  mistake(
    "a table that goes on though it was altered before a restart",
    "completed",
    ["ab", "", "Alter", "Crash"],
    nextBut((phase, event) =>
      event._tag === "Began" && phase._tag === "Kept" ? real.next({ ...phase, shape: event.shape }, event) : undefined
    )
  ),
  mistake(
    "a table that goes on though it was altered",
    "completed",
    ["ab", "", "Alter"],
    nextBut((phase, event) =>
      event._tag === "Voided" && phase._tag === "Reading" ? { ...phase, shape: "shape 1" } : undefined
    )
  ),
  // A target that was rolled back with its run lacks rows, and gets none.
  mistake(
    "a run that goes on where the run before had been",
    "completed",
    ["ab", "", "Rerun"],
    nextBut((phase, event) => (event._tag === "Attached" || event._tag === "Adopted" ? phase : undefined)),
    { isPrompt: false }
  ),
  mistake(
    "a chunk that counts as durable when it is handed over",
    "end",
    ["ab", "", "Crash"],
    { countsHandedOver: true },
    { isPrompt: false }
  ),
  mistake("a new beginning of which the ledger knows nothing", "completed", ["ab", "", "Alter", "Crash"], {
    savesNoBeginning: true
  }),
  // The known method: rows between two marks that were touched are dropped, and with them values that no update sends.
  mistake("touched rows that are dropped", "completed", ["a", "ua"], {
    resolve: (phase, chunk) => {
      const resolved = real.resolve(phase, chunk)
      return { ...resolved, rows: resolved.rows.filter((row) => chunk.rows.get(String(row.id)) === row) }
    }
  }),
  // The known method without even that.
  mistake("rows as the snapshot has them", "completed", ["a", "da"], {
    resolve: (phase, chunk) => ({ ...real.resolve(phase, chunk), rows: Array.from(chunk.rows.values()) })
  }),
  // A row that moves to where a chunk was, and leaves its value behind.
  mistake("an end that does not wait for keys that are to be read again", "completed", ["bc", "mc>a"], {
    resolve: (phase, chunk) => ({ ...real.resolve(phase, chunk), isLast: chunk.end === undefined })
  }),
  mistake("keys read again by a snapshot that does not see the move", "completed", ["bc", "mc>a"], {
    asksUnseen: true,
    resolve: (phase, chunk) => {
      for (const key of chunk.asked) phase.touched.rereads.delete(key)
      return real.resolve(phase, chunk)
    }
  }),
  mistake("a key to be read again that another process knows nothing of", "completed", ["bc", "mc>a", "Crash"], {
    left: (reading) => real.left({ ...reading, rereads: [] })
  }),
  mistake(
    "an acknowledgement passed on before the keys behind it are written down",
    "completed",
    ["bc", "mc>a", "Crash"],
    {
      savesLate: true
    }
  ),
  // A TRUNCATE or an ALTER comes between the rows and their place.
  mistake("a table that is let go before the mark is committed", "completed", ["a", "", "Alter"], {
    unlocksEarly: true
  }),
  // What it did not see is forgotten by now: another snapshot has.
  mistake("a chunk of a try that was given up", "completed", ["a", "da", "CutReader"], { takesForgotten: true }),
  mistake(
    "a request that goes on though it was cancelled",
    "cancelled",
    ["a", "", "Cancel"],
    nextBut((phase, event) => (event._tag === "Ended" && event.end._tag === "SnapshotCancelled" ? phase : undefined))
  ),
  // A later snapshot sees what was noted after all, and nobody looks.
  mistake(
    "a pause that forgets and a stream that is not followed again",
    "progress",
    ["a", "", "Pause"],
    nextBut((phase, event) => (event._tag === "Followed" ? phase : undefined))
  )
]
