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

/** What one wait should gather, in bytes. */
export const targetBytes = 512 * 1024

/** Messages of this many bytes fill a read by themselves: nothing is gained by waiting. */
export const largeMessageBytes = 8 * 1024

/** What the last few reads tell; one read would not. */
export interface Recent {
  /** Bytes a change: between two large values stands a commit of a few bytes. */
  readonly messageBytes: number
  /** How fast bytes came: a read right after a large one finds little, and says nothing of the next. */
  readonly bytesPerMilli: number
}

/** Gathers {@link Recent}: older reads count less and less. */
export class RecentReads {
  private bytes = 0
  private changes = 0
  private millis = 0

  /** Enters a read, and the milliseconds since the one before it began. */
  next(bytes: number, changes: number, elapsedMillis: number): Recent {
    this.bytes = this.bytes * 0.8 + bytes
    this.changes = this.changes * 0.8 + changes
    this.millis = this.millis * 0.8 + elapsedMillis
    return {
      messageBytes: this.bytes / Math.max(1, this.changes),
      bytesPerMilli: this.bytes / Math.max(0.05, this.millis)
    }
  }
}

/** The read that has just been decoded, and what the ones before it tell. */
export interface LastRead extends Recent {
  /** How many bytes it gave. */
  readonly bytes: number
  /** Milliseconds between the last transaction's commit and the packet that brought it, both by the server's clock. */
  readonly behindMillis: number
}

/**
 * Milliseconds to leave the socket alone before the next read, 0 to `maxWait`. A `maxWait` of 0 turns waiting off.
 *
 * @example
 * waitMillis({ bytes: 4096, messageBytes: 80, bytesPerMilli: 4096, behindMillis: 60_000 }, 20) // => 20
 */
export const waitMillis = (read: LastRead, maxWait: number): number => {
  if (maxWait <= 0 || read.behindMillis <= behindMillis) return 0
  if (read.bytes >= targetBytes || read.messageBytes >= largeMessageBytes) return 0
  return Math.min(maxWait, Math.max(1, Math.round(targetBytes / read.bytesPerMilli)))
}
