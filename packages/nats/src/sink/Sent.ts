/**
 * What a process has put into a stream, by sequence: of that which is under way it is not known whether it is there, but where it
 * would be. So a stream's last sequence alone tells whether somebody else has written since, and what stood there though it has
 * expired.
 */
import type { Mark, Message } from "@replicant/core/sink"

/** Openings in one another's place. */
export const familyOf = (epoch: string): string => epoch.split(".")[0]!

interface Batch {
  /** The sequence of its first message. */
  readonly first: number
  readonly messages: ReadonlyArray<Message>
}

export class Sent {
  private family: string | undefined
  private batches: Array<Batch> = []
  /** Of what the stream has acknowledged last: a sequence, and what was held last with it. */
  private confirmed: { readonly sequence: number; readonly mark: Mark | undefined } = { sequence: 0, mark: undefined }

  /** A record of this epoch is in the stream: nothing that was under way before comes behind it. */
  opened(epoch: string, sequence: number, mark: Mark | undefined): void {
    this.family = familyOf(epoch)
    this.batches = []
    this.confirmed = { sequence, mark }
  }

  /** These are under way. */
  sending(first: number, messages: ReadonlyArray<Message>): void {
    this.batches.push({ first, messages })
  }

  /** All is there up to this sequence. */
  confirm(sequence: number): void {
    const mark = this.messageAt(sequence) ?? this.confirmed.mark
    this.confirmed = { sequence, mark: mark === undefined ? undefined : { id: mark.id, systemId: mark.systemId } }
    this.batches = this.batches.filter(({ first, messages }) => first + messages.length - 1 > sequence)
  }

  /** What is held last where a stream ends at this sequence; `undefined` if that is not known. */
  heldAt(sequence: number): { readonly mark: Mark | undefined } | undefined {
    if (sequence === this.confirmed.sequence) return { mark: this.confirmed.mark }
    const mark = this.messageAt(sequence)
    return mark === undefined ? undefined : { mark }
  }

  /** The message of ours that was to stand there, if it is under way. */
  messageAt(sequence: number): Message | undefined {
    const batch = this.batches.find(({ first, messages }) => sequence >= first && sequence < first + messages.length)
    return batch?.messages[sequence - batch.first]
  }

  /** Whether nobody but writers of this family has written, so far as a stream that ends there tells, with this message. */
  isAlone(epoch: string, sequence: number, last: Mark | undefined): boolean {
    if (familyOf(epoch) !== this.family) return false
    // It went back: what is there is none of anybody's who came after.
    if (sequence < this.confirmed.sequence) return true
    const held = this.heldAt(sequence)
    return held !== undefined && (last === undefined || last.id === held.mark?.id)
  }
}
