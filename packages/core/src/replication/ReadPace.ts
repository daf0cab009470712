/**
 * When to read again: at once, or a little later so that more gathers.
 *
 * A walsender writes one small packet a message, and a client that reads each as it comes makes both ends spend their
 * time in system calls. While a stream is behind, leaving the socket alone for some milliseconds gathers many messages
 * into one read, at a fraction of the cost. Live traffic is never delayed, and large values never wait.
 *
 * Pure: what is decided here, the copy-data fiber carries out. docs/performance.md has the measurements.
 */

/** A transaction this much older than the packet that brings it, in milliseconds, belongs to a backlog. */
export const behindMillis = 50

/**
 * What one wait should gather, in bytes: somewhat less than the driver takes in one pull. The less often a walsender is
 * stopped to be read from, the faster it is.
 */
export const targetBytes = 896 * 1024

/** No receive window is smaller: a read of fewer bytes did not fill it. */
export const leastWindow = 64 * 1024

/** So many reads of one size, one after the other, are no coincidence. */
const sameReads = 3

/** Less than this comes a millisecond where the server itself has little to send, however old: waiting gathers nothing. */
export const trickleBytes = 1024

/** Messages of this many bytes fill a read by themselves: nothing is gained by waiting. */
export const largeMessageBytes = 8 * 1024

/** What the last few reads tell; one read would not. */
export interface Recent {
  /** Bytes a change: between two large values stands a commit of a few bytes. */
  readonly messageBytes: number
  /** How fast bytes came: a read right after a large one finds little, and says nothing of the next. */
  readonly bytesPerMilli: number
  /**
   * How much of a wait is worth while, up to 1. Reads of the same size one after the other are those of a full receive
   * window: what was waited beyond that was the walsender's time as well, and made it look slow.
   */
  readonly share: number
}

/** Gathers {@link Recent}: older reads count less and less. */
export class RecentReads {
  private bytes = 0
  private changes = 0
  private millis = 0
  private share = 1
  private lastBytes = 0
  private same = 0

  /** Enters a read, and the milliseconds since the one before it began. */
  next(bytes: number, changes: number, elapsedMillis: number): Recent {
    this.bytes = this.bytes * 0.8 + bytes
    this.changes = this.changes * 0.8 + changes
    this.millis = this.millis * 0.8 + elapsedMillis
    this.same = bytes >= leastWindow && Math.abs(bytes - this.lastBytes) < bytes / 128 ? this.same + 1 : 1
    this.lastBytes = bytes
    this.share = this.same >= sameReads ? Math.max(1 / 16, this.share / 2) : Math.min(1, this.share * 1.25)
    return {
      messageBytes: this.bytes / Math.max(1, this.changes),
      bytesPerMilli: this.bytes / Math.max(0.05, this.millis),
      share: this.share
    }
  }
}

/** The reads so far, and how old what the last one brought is. */
export interface LastRead extends Recent {
  /** Milliseconds between the last transaction's commit and the packet that brought it, both by the server's clock. */
  readonly behindMillis: number
}

/**
 * Milliseconds to leave the socket alone before the next read, 0 to `maxWait`. A `maxWait` of 0 turns waiting off.
 *
 * @example
 * waitMillis({ messageBytes: 80, bytesPerMilli: 4096, share: 1, behindMillis: 60_000 }, 20) // => 20
 */
export const waitMillis = (read: LastRead, maxWait: number): number => {
  if (maxWait <= 0 || read.behindMillis <= behindMillis) return 0
  if (read.bytesPerMilli < trickleBytes || read.messageBytes >= largeMessageBytes) return 0
  return Math.max(1, Math.round(read.share * Math.min(maxWait, targetBytes / read.bytesPerMilli)))
}
