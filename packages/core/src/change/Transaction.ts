/**
 * A whole transaction, and the fold that gathers one out of changes. Gathering takes memory, so it has a budget; a
 * consumer that cannot know how large transactions grow takes `changes`, which holds none.
 */
import * as Result from "effect/Result"
import type * as Lsn from "../Lsn.ts"
import { InvalidOption, TransactionTooLarge } from "../ReplicationError.ts"
import type { Begin, Change, Commit, Gap, Message, TransactionChange } from "./Change.ts"
import type { NextLsn } from "./NextLsn.ts"
import type { OutputPlugin } from "./OutputPlugin.ts"

/** Everything that one commit made visible, in order. What the first Replicant called a change. */
export interface Transaction {
  readonly _tag: "Transaction"
  /** `undefined` for what stands outside any transaction, a message or a gap: it is alone in `changes` then. */
  readonly begin: Begin | undefined
  readonly commit: Commit | undefined
  readonly changes: ReadonlyArray<TransactionChange | Gap>
  /** The byte after its commit record; of a gap, its consistent point. */
  readonly endLsn: Lsn.Lsn
  /** Acknowledges it. */
  readonly nextLsn: NextLsn
}

/**
 * Whether what a plugin says can be gathered into transactions. One that tells of PREPARE cannot: what is prepared is not
 * committed, and a `Transaction` is.
 */
export const wholeTransactions = (plugin: OutputPlugin): Result.Result<void, InvalidOption> =>
  plugin.tells.prepared
    ? Result.fail(
        new InvalidOption({ option: "twoPhase", problem: "delivers what is not committed: consume changes instead" })
      )
    : Result.succeed(undefined)

/** 64 MiB of WAL messages. In memory a transaction takes some five times that. */
export const defaultMaxBytes = 64 * 1024 * 1024

/** Gathers transactions across reads. One folder serves one copy stream. */
export class TransactionFold {
  private begin: Begin | undefined
  private changes: Array<TransactionChange> = []
  private bytes = 0
  private readonly maxBytes: number

  constructor(maxBytes: number = defaultMaxBytes) {
    this.maxBytes = maxBytes
  }

  /**
   * The transactions that end within `changes`, which came in a read of `bytes` bytes. Of a transaction that spans reads
   * each read counts whole, so the budget is exact to the size of one read. Returns the error once it is exceeded.
   */
  fold(changes: ReadonlyArray<Change>, bytes: number): Array<Transaction> | TransactionTooLarge {
    const transactions: Array<Transaction> = []
    this.bytes += bytes
    for (const change of changes) {
      switch (change._tag) {
        case "Begin":
          this.begin = change
          this.changes = []
          this.bytes = bytes
          break
        case "Commit":
          transactions.push({
            _tag: "Transaction",
            begin: this.begin,
            commit: change,
            changes: this.changes,
            endLsn: change.endLsn,
            nextLsn: change.nextLsn
          })
          this.begin = undefined
          this.changes = []
          break
        case "Gap":
          transactions.push(alone(change, change.nextLsn))
          break
        case "Prepare":
        case "CommitPrepared":
        case "RollbackPrepared":
          // Whoever opens a stream of transactions refuses a plugin that tells of these.
          throw new Error("a prepared transaction among whole ones")
        default:
          if (change._tag === "Message" && change.nextLsn !== undefined) {
            transactions.push(alone(change, change.nextLsn))
          } else {
            this.changes.push(change)
          }
      }
    }
    const { begin, maxBytes } = this
    return begin !== undefined && this.bytes > maxBytes && this.changes.length > 0
      ? new TransactionTooLarge({ xid: begin.xid, commitLsn: begin.commitLsn, bytes: this.bytes, maxBytes })
      : transactions
  }
}

const alone = (change: Message | Gap, nextLsn: NextLsn): Transaction => ({
  _tag: "Transaction",
  begin: undefined,
  commit: undefined,
  changes: [change],
  endLsn: nextLsn.lsn,
  nextLsn
})
