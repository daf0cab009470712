/**
 * How many rows the next chunk has. A chunk holds a lock and a snapshot for as long as it is read, and lies in memory until
 * its place in the stream has come: so it aims at a time and at a size, by what the one before took. Pure, but for the clock.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../MonotonicTime.ts"

/** What a chunk may come to. */
export interface ChunkOptions {
  /** Rows at most: 50,000. */
  readonly rows?: number | undefined
  /** Bytes at most, as COPY sends them: 16 MiB. A single row may be larger. */
  readonly bytes?: number | undefined
  /** How long reading one should take: half a second. For so long its lock is held, and its snapshot. */
  readonly duration?: Duration.Input | undefined
}

/** What a chunk came to. */
export interface ChunkMeasure {
  readonly rows: number
  readonly bytes: number
  readonly millis: number
}

/** Nothing is known of the table yet. */
const firstRows = 1000

export class ChunkPace {
  /** Rows of the next chunk. */
  rows: number
  readonly maxBytes: number
  private readonly maxRows: number
  private readonly millis: number

  constructor({ bytes = 16 * 1024 * 1024, duration = "500 millis", rows = 50_000 }: ChunkOptions = {}) {
    this.maxRows = Math.max(1, Math.floor(rows))
    this.maxBytes = Math.max(1, bytes)
    this.millis = Math.max(1, Duration.toMillis(Duration.fromInputUnsafe(duration)))
    this.rows = Math.min(firstRows, this.maxRows)
  }

  /** Learns from a chunk. It doubles at most and comes down to a quarter at most, so that one odd chunk does not decide. */
  learn({ bytes, millis, rows }: ChunkMeasure): void {
    if (rows === 0) return
    const inTime = (rows * this.millis) / Math.max(1, millis)
    const inBytes = (rows * this.maxBytes) / Math.max(1, bytes)
    const wanted = Math.min(inTime, inBytes, this.maxRows, 2 * Math.max(rows, this.rows))
    this.rows = Math.max(1, Math.floor(Math.max(wanted, Math.min(rows, this.rows) / 4)))
  }

  /** A chunk was in vain: the next one is smaller. */
  shrink(): void {
    this.rows = Math.max(1, Math.floor(this.rows / 4))
  }

  /** Runs what reads a chunk, and learns from it. */
  measure<A extends Omit<ChunkMeasure, "millis">, E, R>(read: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.gen({ self: this }, function* () {
      const since = yield* monotonicMillis
      const chunk = yield* read
      this.learn({ rows: chunk.rows, bytes: chunk.bytes, millis: (yield* monotonicMillis) - since })
      return chunk
    })
  }
}
