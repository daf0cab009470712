/**
 * Who may begin when: work in the order of its keys, side by side where it has none in common. Pure: it runs nothing, and is
 * told what has ended.
 *
 * Work waits for the last one before it of each of its keys, and for nothing else. So it costs a step a key, however much is
 * waiting, and what has ended is forgotten.
 */

/** Work that was added. */
export class Work<out A> {
  readonly value: A
  readonly keys: ReadonlyArray<string>
  /** How many before it have not ended. */
  waits = 0
  /** Who waits for it. */
  readonly followers: Array<Work<unknown>> = []

  constructor(value: A, keys: ReadonlyArray<string>) {
    this.value = value
    this.keys = keys
  }
}

export class KeyOrder<A> {
  /** The last work of each key that has not ended. */
  private readonly last = new Map<string, Work<A>>()
  private ready: Array<Work<A>> = []
  private taken = 0
  /** What has not ended, begun or not. */
  size = 0

  /** Work that is to come after all that has a key in common with it. */
  add(value: A, keys: ReadonlyArray<string>): void {
    const work = new Work(value, keys)
    this.size++
    for (const key of keys) {
      const before = this.last.get(key)
      if (before === work) continue
      this.last.set(key, work)
      if (before === undefined) continue
      before.followers.push(work)
      work.waits++
    }
    if (work.waits === 0) this.ready.push(work)
  }

  /** The longest ready that may begin now; `undefined` while none may. It is to be ended, and by what fails it is not. */
  take(): Work<A> | undefined {
    const work = this.ready[this.taken]
    if (work === undefined) return undefined
    this.taken++
    if (this.taken === this.ready.length || this.taken === 1024) {
      this.ready = this.ready.slice(this.taken)
      this.taken = 0
    }
    return work
  }

  /** It has ended: what follows it may begin. */
  end(work: Work<A>): void {
    this.size--
    for (const key of work.keys) if (this.last.get(key) === work) this.last.delete(key)
    for (const follower of work.followers as Array<Work<A>>) {
      follower.waits--
      if (follower.waits === 0) this.ready.push(follower)
    }
  }
}
