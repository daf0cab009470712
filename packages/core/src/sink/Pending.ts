/**
 * Messages that are not known to be durable, in order, in the batches in which they are appended; and behind each batch the end
 * of the last unit that it completes. Pure: `Flight` carries out what it says.
 */
import type { Handled } from "../change/NextLsn.ts"
import type { Message } from "./Message.ts"
import type { Output } from "./MessageReader.ts"

/** So many messages, and characters. */
export interface Size {
  readonly messages: number
  readonly characters: number
}

/** What one append brings. */
export interface Batch {
  messages: Array<Message>
  characters: number
  /** The last unit that ends in it. */
  end: Handled
  isDurable: boolean
}

/** Beside its text a message takes memory of its own. */
const sizeOf = ({ key, value }: Message): number => (value?.length ?? 0) + (key?.length ?? 0) + 64

const charactersOf = (messages: ReadonlyArray<Message>): number =>
  messages.reduce((sum, message) => sum + sizeOf(message), 0)

export class Pending {
  private batches: Array<Batch> = []
  /** The first so many have been handed to the writer. */
  private sent = 0
  private messages = 0
  private characters = 0
  /** What stands in the place of another. */
  private readonly replacements = new WeakSet<Message>()
  /** Of one batch. */
  private readonly most: Size

  constructor(most: Size) {
    this.most = most
  }

  get isEmpty(): boolean {
    return this.batches.length === 0
  }

  /** How many are under way. */
  get underWay(): number {
    return this.sent
  }

  /** The first of those that are under way. */
  get oldest(): Batch | undefined {
    return this.sent > 0 ? this.batches[0] : undefined
  }

  exceeds({ characters, messages }: Size): boolean {
    return this.messages > messages || this.characters > characters
  }

  /** Puts messages into batches, and ends behind them; gives an end that nothing stands before. */
  add({ ends, messages }: Output): Handled {
    let [taken, next] = [0, 0]
    while (taken < messages.length) {
      const batch = this.unsent()
      while (taken < messages.length && this.hasRoom(batch.messages.length, batch.characters)) {
        const message = messages[taken++]!
        const size = sizeOf(message)
        batch.messages.push(message)
        batch.characters += size
        this.characters += size
        this.messages++
      }
      while (next < ends.length && ends[next]!.behind <= taken) batch.end = ends[next++]!.nextLsn
    }
    const end = next < ends.length ? ends.at(-1)!.nextLsn : undefined
    const before = this.batches.at(-1)
    if (end === undefined || before === undefined) return end
    before.end = end
    return undefined
  }

  /** The next batch to be appended, which counts as under way from here on. */
  next(): Batch | undefined {
    const batch = this.batches[this.sent]
    if (batch !== undefined) this.sent++
    return batch
  }

  /** Drops what is durable, from the front, and gives the end of it. */
  settle(): Handled {
    let end: Handled
    while (this.batches[0]?.isDurable === true) {
      const batch = this.batches.shift()!
      this.sent = Math.max(0, this.sent - 1)
      this.exchange(batch, [])
      end = batch.end ?? end
    }
    return end
  }

  /**
   * A new writer: nothing is under way, and what stands at its mark or before is durable. Gives the end of that, as it is dropped
   * at once: a batch that is durable and still in the list could be given messages, which then were never appended.
   */
  resume(mark: string | undefined): Handled {
    this.sent = 0
    for (const batch of this.batches) {
      if (mark !== undefined)
        this.exchange(
          batch,
          batch.messages.filter(({ id }) => id > mark)
        )
      batch.isDurable = batch.messages.length === 0
    }
    return this.settle()
  }

  /** Puts another message in the place of one, if there is another: one for each place, as that may be rejected as well. */
  replace(id: string, other: (message: Message) => Message | undefined): boolean {
    for (const batch of this.batches) {
      const at = batch.messages.findIndex((message) => message.id === id)
      if (at < 0) continue
      const rejected = batch.messages[at]!
      const replacement = this.replacements.has(rejected) ? undefined : other(rejected)
      if (replacement === undefined) return false
      const placed = { ...replacement, id }
      this.replacements.add(placed)
      this.exchange(batch, batch.messages.with(at, placed))
      return true
    }
    return false
  }

  private hasRoom(messages: number, characters: number): boolean {
    return messages === 0 || (messages < this.most.messages && characters < this.most.characters)
  }

  /** The last batch, if it has yet to be appended and can take more; else a new one. */
  private unsent(): Batch {
    const last = this.batches.at(-1)
    const isUnsent = last !== undefined && !last.isDurable && this.batches.length > this.sent
    if (isUnsent && this.hasRoom(last.messages.length, last.characters)) return last
    const batch: Batch = { messages: [], characters: 0, end: undefined, isDurable: false }
    this.batches.push(batch)
    return batch
  }

  /** Gives a batch other messages, and keeps count of all that is kept. */
  private exchange(batch: Batch, messages: Array<Message>): void {
    const characters = charactersOf(messages)
    this.messages += messages.length - batch.messages.length
    this.characters += characters - batch.characters
    batch.messages = messages
    batch.characters = characters
  }
}
