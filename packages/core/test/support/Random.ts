/** A sequence of numbers that is its seed's alone, for tests that must be run again just so: Mulberry32. */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** From 0 up to, not including, 2^32. */
  uint32(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }

  /** From 0 up to, not including, `limit`. */
  below(limit: number): number {
    return this.uint32() % limit
  }

  /** True in that many of a hundred. */
  chance(percent: number): boolean {
    return this.below(100) < percent
  }

  pick<A>(items: ReadonlyArray<A>): A {
    return items[this.below(items.length)]!
  }
}
