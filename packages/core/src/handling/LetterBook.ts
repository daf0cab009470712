/**
 * Which rows have letters, and which letters may be tried now. Pure: the stores of letters keep one beside what they store, so that
 * nobody has to ask for every row.
 *
 * The order is that of ids, which is the order of delivery, and not that in which letters were written: what is delivered again after
 * a crash is from before a letter that is there.
 */
import { type Letter, type LetterName, nameText } from "./Letter.ts"

const keyText = (slot: string, key: string): string => `${slot}\u0000${key}`

const byId = (left: Letter, right: Letter): number => (left.id < right.id ? -1 : left.id > right.id ? 1 : 0)

/** How many letters there are, and when the oldest of them was parked: Unix milliseconds. */
export interface Census {
  readonly letters: number
  readonly since: number | undefined
}

export class LetterBook {
  private readonly letters = new Map<string, Letter>()
  private readonly byKey = new Map<string, Set<Letter>>()
  /** Letters that are being tried, also such as were dropped meanwhile: their rows are held until that has ended. */
  private readonly trying = new Map<string, Letter>()
  private sorted: ReadonlyArray<Letter> | undefined
  /** Of each slot that was asked for. */
  private readonly censuses = new Map<string, Census>()

  /** Nothing is held: not even what is being tried. */
  get isEmpty(): boolean {
    return this.letters.size === 0 && this.trying.size === 0
  }

  get(name: LetterName): Letter | undefined {
    return this.letters.get(nameText(name))
  }

  /** All of them, in order. */
  get all(): ReadonlyArray<Letter> {
    this.sorted ??= [...this.letters.values()].sort(byId)
    return this.sorted
  }

  /** Those of a slot, in order. */
  of(slot: string): ReadonlyArray<Letter> {
    return this.all.filter((letter) => letter.slot === slot)
  }

  /** How many a slot has, and since when. */
  census(slot: string): Census {
    let census = this.censuses.get(slot)
    if (census === undefined) {
      const letters = this.of(slot)
      const since = letters.reduce<number | undefined>(
        (oldest, { firstAt }) => Math.min(oldest ?? firstAt, firstAt),
        undefined
      )
      census = { letters: letters.length, since }
      this.censuses.set(slot, census)
    }
    return census
  }

  set(letter: Letter): void {
    const name = nameText(letter)
    const before = this.letters.get(name)
    if (before !== undefined) this.unlink(before)
    this.letters.set(name, letter)
    this.sorted = undefined
    const census = this.censuses.get(letter.slot)
    if (before === undefined && census !== undefined) {
      const since = Math.min(census.since ?? letter.firstAt, letter.firstAt)
      this.censuses.set(letter.slot, { letters: census.letters + 1, since })
    }
    for (const key of letter.keys) {
      const text = keyText(letter.slot, key)
      const held = this.byKey.get(text)
      if (held === undefined) this.byKey.set(text, new Set([letter]))
      else held.add(letter)
    }
  }

  delete(name: LetterName): void {
    const text = nameText(name)
    const letter = this.letters.get(text)
    if (letter === undefined) return
    this.letters.delete(text)
    this.sorted = undefined
    this.censuses.delete(letter.slot)
    this.unlink(letter)
  }

  /** What is stored by now, whoever has changed it. */
  replace(letters: ReadonlyArray<Letter>): void {
    const names = new Set(letters.map(nameText))
    for (const letter of [...this.letters.values()]) if (!names.has(nameText(letter))) this.delete(letter)
    for (const letter of letters) this.set(letter)
  }

  /** This letter is being tried, until `release`. */
  hold(letter: Letter): void {
    this.trying.set(nameText(letter), letter)
  }

  release(letter: Letter): void {
    this.trying.delete(nameText(letter))
  }

  /**
   * Whether a letter stands before this change on one of its rows. What comes again from before a letter does not follow it: it
   * would be handled after what came later.
   */
  holds({ id, slot }: LetterName, keys: ReadonlyArray<string>): boolean {
    for (const key of keys) {
      const held = this.byKey.get(keyText(slot, key))
      if (held !== undefined) for (const letter of held) if (letter.id <= id) return true
    }
    if (this.trying.size > 0) {
      for (const letter of this.trying.values()) {
        if (letter.slot === slot && letter.id <= id && letter.keys.some((key) => keys.includes(key))) return true
      }
    }
    return false
  }

  private unlink(letter: Letter): void {
    for (const key of letter.keys) {
      const text = keyText(letter.slot, key)
      const held = this.byKey.get(text)
      held?.delete(letter)
      if (held?.size === 0) this.byKey.delete(text)
    }
  }
}

/**
 * One walk over the letters of a slot, in order: which may be tried, as no earlier one of their rows is left. What is tried and goes is
 * no obstacle to those behind it, in the same walk.
 */
export class Walk {
  private readonly blocked = new Set<string>()

  /** Whether it may be tried now. If not, or if it stays, tell {@link leave}. */
  may(letter: Letter): boolean {
    return letter.state !== "failed" && !letter.keys.some((key) => this.blocked.has(key))
  }

  /** It stays: nothing behind it on its rows may go. */
  leave(letter: Letter): void {
    for (const key of letter.keys) this.blocked.add(key)
  }
}
