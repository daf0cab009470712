/**
 * How far each of several consumers of the same units is, and what all that must be done with them are done with. Pure, of one
 * connection.
 *
 * Each finishes units in any order. What it has done is the longest finished prefix, as for a single consumer; what is done by all is the
 * shortest of these.
 */
import type { NextLsn } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"

/** One consumer's book. Units are counted from the first of the connection. */
class Book {
  readonly isRequired: boolean
  /** So many from the beginning are done, and some behind them. */
  done = 0
  readonly ahead = new Set<number>()
  lsn = Lsn.zero
  constructor(isRequired: boolean) {
    this.isRequired = isRequired
  }
}

/** An optional consumer's units are remembered so long: who is further behind is not known to have all. */
const mostUnits = 100_000

export class SharedProgress {
  /** Those that somebody is not done with. */
  private units: Array<NextLsn> = []
  /** How many were before them. */
  private base = 0
  private readonly places = new Map<NextLsn, number>()
  private readonly books = new Map<string, Book>()
  /** So many are done by all that must be. */
  private finished = 0

  /** A consumer that is given every unit that is to come. */
  join(name: string, isRequired: boolean): void {
    const book = new Book(isRequired)
    book.done = this.base + this.units.length
    this.books.set(name, book)
  }

  /** It is given nothing more, and is waited for no longer. Only an optional one may leave. */
  leave(name: string): void {
    if (this.books.get(name)?.isRequired === false) this.books.delete(name)
    this.trim()
  }

  /** A unit has come, behind all others. */
  deliver(unit: NextLsn): void {
    this.places.set(unit, this.base + this.units.length)
    this.units.push(unit)
    if (this.units.length > mostUnits) {
      for (const [name, book] of this.books) if (!book.isRequired && book.done === this.base) this.books.delete(name)
      this.trim()
    }
  }

  /** This unit is done by this consumer. Gives the last that is done by all, where that has changed. */
  acknowledge(name: string, unit: NextLsn): NextLsn | undefined {
    const book = this.books.get(name)
    const place = this.places.get(unit)
    if (book === undefined || place === undefined || place < book.done) return undefined
    book.ahead.add(place)
    return this.advance(book, book.done)
  }

  /** This unit is done by this consumer, and all before it. */
  acknowledgeThrough(name: string, unit: NextLsn): NextLsn | undefined {
    const book = this.books.get(name)
    const place = this.places.get(unit)
    if (book === undefined || place === undefined || place < book.done) return undefined
    for (const ahead of book.ahead) if (ahead <= place) book.ahead.delete(ahead)
    return this.advance(book, place + 1)
  }

  /** Everything before this is done by this consumer. */
  doneBy(name: string): Lsn.Lsn {
    return this.books.get(name)?.lsn ?? Lsn.zero
  }

  /**
   * Whether this consumer has done every unit that ends here or before: what a connection that follows does not bring again.
   */
  hasAll(name: string, lsn: Lsn.Lsn): boolean {
    const book = this.books.get(name)
    if (book === undefined) return false
    const first = this.units[book.done - this.base]
    return first === undefined || first.lsn > lsn
  }

  private advance(book: Book, from: number): NextLsn | undefined {
    let done = from
    while (book.ahead.delete(done)) done++
    if (done === book.done) return undefined
    book.done = done
    book.lsn = this.units[done - 1 - this.base]!.lsn
    let least = Number.POSITIVE_INFINITY
    for (const each of this.books.values()) if (each.isRequired) least = Math.min(least, each.done)
    const last = least > this.finished && Number.isFinite(least) ? this.units[least - 1 - this.base] : undefined
    if (last !== undefined) this.finished = least
    this.trim()
    return last
  }

  /** Forgets what everybody is done with. */
  private trim(): void {
    let least = this.base + this.units.length
    for (const book of this.books.values()) least = Math.min(least, book.done)
    const count = least - this.base
    // Now and then, so that it costs nothing a unit.
    if (count < 1024 && count < this.units.length) return
    for (let index = 0; index < count; index++) this.places.delete(this.units[index]!)
    this.units = this.units.slice(count)
    this.base = least
  }
}
