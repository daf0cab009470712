/**
 * What a consumer's ledger proves, line by line as it grows: what arrived, in which order, how often, and how far the
 * server had been told at any time. It knows files and lines; what was committed is for the caller to say.
 */
import { closeSync, existsSync, openSync, readSync, statSync } from "node:fs"
import { Lsn } from "@replicant/core"

/** What was committed: the number of each transaction, and how many rows it changed. */
export type Committed = ReadonlyMap<string, number>

export interface Verdict {
  readonly delivered: number
  readonly duplicates: number
  readonly lost: number
  readonly reordered: number
  /** Of transactions that never committed. */
  readonly leaked: number
  /** Arrived with another number of rows than were committed, once or again. */
  readonly torn: number
}

const chunkLength = 1 << 20

/** Reads a ledger as it grows. */
export class LedgerReader {
  readonly path: string
  /** Rows by the number of the transaction, as they first arrived. */
  private readonly rows = new Map<string, number>()
  private readonly ends = new Map<bigint, string>()
  private readonly disagreeing = new Set<string>()
  private offset = 0
  private rest = ""
  private furthest: Lsn.Lsn = Lsn.zero
  private duplicates = 0
  private reordered = 0

  constructor(path: string) {
    this.path = path
  }

  get delivered(): number {
    return this.ends.size
  }

  get redelivered(): number {
    return this.duplicates
  }

  /** The furthest end in the ledger. */
  get end(): Lsn.Lsn {
    return this.furthest
  }

  has(number: string): boolean {
    return this.rows.has(number)
  }

  /** Takes in what was written since. */
  read(): void {
    if (!existsSync(this.path)) return
    const file = openSync(this.path, "r")
    const chunk = Buffer.alloc(Math.min(chunkLength, statSync(this.path).size - this.offset))
    for (let length = chunk.length; length > 0; ) {
      length = readSync(file, chunk, 0, chunk.length, this.offset)
      this.offset += length
      const lines = (this.rest + chunk.toString("latin1", 0, length)).split("\n")
      this.rest = lines.pop() ?? ""
      for (const line of lines) this.take(line)
    }
    closeSync(file)
  }

  private take(line: string): void {
    const [lsn = "", number = "", rows = ""] = line.split(" ")
    const end = Lsn.fromString(lsn)
    if (end === undefined) throw new Error(`not a line of a ledger: ${line}`)
    if (this.ends.has(end)) {
      this.duplicates++
      if (this.ends.get(end) !== number) this.disagreeing.add(number)
    } else {
      // A transaction that comes for the first time comes after all that came before it.
      if (end <= this.furthest) this.reordered++
      this.ends.set(end, number)
      this.furthest = Lsn.max(this.furthest, end)
    }
    // Without a number it is DDL or a message, of which nobody keeps count.
    if (number === "-") return
    const known = this.rows.get(number)
    if (known !== undefined && known !== Number(rows)) this.disagreeing.add(number)
    this.rows.set(number, Number(rows))
  }

  /** Compares with what was committed. */
  verdict(committed: Committed): Verdict {
    let lost = 0
    const torn = new Set(this.disagreeing)
    for (const [number, rows] of committed) {
      const arrived = this.rows.get(number)
      if (arrived === undefined) lost++
      else if (arrived !== rows) torn.add(number)
    }
    const leaked = [...this.rows.keys()].filter((number) => !committed.has(number)).length
    return {
      delivered: this.ends.size,
      duplicates: this.duplicates,
      lost,
      reordered: this.reordered,
      leaked,
      torn: torn.size
    }
  }
}
