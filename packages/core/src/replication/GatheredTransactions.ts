/**
 * The transactions in progress of one connection, kept until they commit, and their changes once they have.
 *
 * The decoder gathers and this carries out: it moves to files what outgrows memory, reads it back chunk by chunk, and
 * hands its changes on no faster than they are taken. What is held in memory at any time is the budget, and one chunk.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { type Change, nextLsn } from "../change/Change.ts"
import { type NextLsn, Run } from "../change/NextLsn.ts"
import { Batch, type GatheredBytes, type Gathering, type Replay } from "../change/OutputPlugin.ts"
import { DecodeError, InvalidOption, type ReplicationError, type SpillFailed } from "../ReplicationError.ts"
import * as Measures from "./Measures.ts"
import { type SpillFile, TransactionSpill } from "./TransactionSpill.ts"
import type { Vitals } from "./Vitals.ts"

/** Takes what one read decoded to, how many bytes it had, and the last unit that ends with it, if one does. */
export type OnChanges<E, R> = (
  changes: NonEmptyReadonlyArray<Change>,
  bytes: number,
  last?: NextLsn | undefined
) => Effect.Effect<unknown, E, R>

/** What of a transaction is in its file: the lengths of its chunks, one behind the other. */
interface Stored {
  readonly file: SpillFile
  readonly scope: Scope.Closeable
  readonly lengths: Array<number>
}

/** Runs a step of the decoder, which throws. */
const decoding = (replay: Replay, step: () => void): Effect.Effect<void, DecodeError> =>
  Effect.try({
    try: step,
    catch: (error) => {
      const { offset, problem } = DecodeError.caught(error)
      return new DecodeError({ problem, offset, lsn: replay.commitLsn })
    }
  })

export interface GatheredTransactions {
  /** After a read: lets go of what was aborted, and of memory while it holds too much. */
  readonly settle: (gathering: Gathering | undefined) => Effect.Effect<void, SpillFailed>
  /** Hands on what a transaction did, from its `Begin` to its `Commit` or `Prepare`, some thousand changes at a time. */
  readonly replay: <E, R>(replay: Replay, onChanges: OnChanges<E, R>) => Effect.Effect<void, ReplicationError | E, R>
}

/** None yet, to be kept as `TransactionSpill` says. Their files go with the scope. */
export const make = Effect.fnUntraced(function* (
  vitals: Vitals
): Effect.fn.Return<GatheredTransactions, InvalidOption, Scope.Scope> {
  const spill = yield* TransactionSpill
  if (spill === undefined) {
    const problem = "needs a place for transactions in progress: provide TransactionSpill.layer()"
    return yield* new InvalidOption({ option: "streaming", problem })
  }
  const connection = yield* Effect.scope
  const stores = new Map<GatheredBytes, Stored>()

  const open = Effect.fnUntraced(function* (bytes: GatheredBytes): Effect.fn.Return<Stored, SpillFailed> {
    const scope = yield* Scope.fork(connection)
    const stored: Stored = { file: yield* Scope.provide(spill.makeFile, scope), scope, lengths: [] }
    stores.set(bytes, stored)
    return stored
  })

  const store = Effect.fnUntraced(function* (bytes: GatheredBytes): Effect.fn.Return<void, SpillFailed> {
    const stored = stores.get(bytes) ?? (yield* open(bytes))
    for (const chunk of bytes.takeChunks()) {
      yield* stored.file.append(chunk)
      stored.lengths.push(chunk.length)
      vitals.spillBytes += chunk.length
      yield* Measures.spilled(chunk.length)
    }
  })

  const release = (bytes: GatheredBytes): Effect.Effect<void> => {
    const stored = stores.get(bytes)
    if (stored === undefined) return Effect.void
    stores.delete(bytes)
    for (const length of stored.lengths) vitals.spillBytes -= length
    return Scope.close(stored.scope, Exit.void)
  }

  const settle = Effect.fnUntraced(function* (gathering: Gathering | undefined): Effect.fn.Return<void, SpillFailed> {
    if (gathering === undefined) return
    for (const bytes of gathering.takeAborted()) yield* release(bytes)
    while (gathering.bytesInMemory > spill.maxBytesInMemory) {
      const largest = gathering.largest()
      if (largest === undefined) return
      yield* store(largest)
    }
  })

  const replay = Effect.fnUntraced(function* <E, R>(
    transaction: Replay,
    onChanges: OnChanges<E, R>
  ): Effect.fn.Return<void, ReplicationError | E, R> {
    // What acknowledges the transaction was made when its end was read: nothing is delivered here.
    const run = new Run()
    let batch = new Batch(run)
    transaction.begin(batch)
    const handOver = Effect.fnUntraced(function* (bytes: number): Effect.fn.Return<void, E, R> {
      const { changes } = batch
      batch = new Batch(run)
      if (!isReadonlyArrayNonEmpty(changes)) return
      yield* Measures.gathered(changes.length)
      yield* onChanges(changes, bytes, nextLsn(changes.at(-1)!))
    })
    const stored = stores.get(transaction.bytes)
    let position = 0
    for (const length of stored?.lengths ?? []) {
      const chunk = yield* stored!.file.read(position, length)
      position += length
      yield* decoding(transaction, () => transaction.decode(chunk, batch))
      yield* handOver(length)
    }
    for (const chunk of transaction.bytes.takeChunks()) {
      yield* decoding(transaction, () => transaction.decode(chunk, batch))
      yield* handOver(chunk.length)
    }
    transaction.end(batch)
    yield* handOver(0)
    yield* release(transaction.bytes)
  })

  return { settle, replay }
})
