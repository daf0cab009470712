/**
 * The capability to acknowledge. A `NextLsn` says "all of this unit is done, the next one may come": only a stream makes
 * one, for a unit it has delivered, and only the run that made it honours it. An LSN alone can be wrong, stale or one
 * byte too far; this cannot.
 */
import type * as Lsn from "../Lsn.ts"

/** One copy stream, by identity: what it delivered can be acknowledged to it and to nothing else. */
export class Run {
  declare private readonly _: never
}

/**
 * The end of a delivered unit: a transaction's `Commit.endLsn`, or the LSN of a message outside any transaction.
 *
 * A class with private parts, so that no object literal passes for one.
 */
export class NextLsn {
  /** What is reported as flushed once this unit and all before it are done. An exclusive end: never add to it. */
  readonly lsn: Lsn.Lsn
  readonly #run: Run
  /** Microseconds of the server's clock; of a message, when it was sent. */
  #committedAt: number
  #isDone = false
  #next: NextLsn | undefined = undefined

  private constructor(lsn: Lsn.Lsn, run: Run, committedAt: number) {
    this.lsn = lsn
    this.#run = run
    this.#committedAt = committedAt
  }

  /** @internal With the time of its commit, where that is known already. */
  static deliver(lsn: Lsn.Lsn, run: Run, committedAt = Number.NaN): NextLsn {
    return new NextLsn(lsn, run, committedAt)
  }

  /** @internal When it was committed, by the server's clock; `NaN` where nothing tells. */
  static committedAt(self: NextLsn): number {
    return self.#committedAt
  }

  /** @internal */
  static date(self: NextLsn, committedAt: number): void {
    self.#committedAt = committedAt
  }

  /** @internal */
  static isOf(self: NextLsn, run: Run): boolean {
    return self.#run === run
  }

  /** @internal */
  static isDone(self: NextLsn): boolean {
    return self.#isDone
  }

  /** @internal */
  static finish(self: NextLsn): void {
    self.#isDone = true
  }

  /** @internal The unit delivered after this one. */
  static next(self: NextLsn): NextLsn | undefined {
    return self.#next
  }

  /** @internal */
  static link(self: NextLsn, next: NextLsn | undefined): void {
    self.#next = next
  }
}

/** What a handler says: the end of what is durable now, with everything delivered before it; or nothing yet. */
export type Handled = NextLsn | undefined
