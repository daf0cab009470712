/** What a stream is asked for: which slot, by which plugin, and with what patience. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { SlotPolicy } from "../server/SlotSetup.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"
import type { DeclarationMismatch } from "../table/DeclarationMismatch.ts"
import type { CheckpointOptions } from "./StartPosition.ts"

/** How long to wait, for what. What is left out has the default that it names; the server's own limits decide some of them. */
export interface Timing {
  /** A status update at least this often: a third of the server's `wal_sender_timeout`, 10 s at most. */
  readonly statusInterval?: Duration.Input | undefined
  /**
   * Silence while reading after which another connection asks what the walsender is doing: 30 s; a ping goes out at half.
   * One that waits for us, or is gone, is given up, one at work is waited for. Where nobody can be asked it is given up now
   * where this is set, else once the ping went unanswered for all of `wal_sender_timeout`, and twice as late each time that
   * this brought the stream no further. 0 turns it off.
   */
  readonly receiverTimeout?: Duration.Input | undefined
  /** How long an acknowledgement may wait to be reported together with others: 1 s. */
  readonly acknowledgeDelay?: Duration.Input | undefined
  /** The longest the socket is left alone while the stream is behind, so that reads are large: 20 ms. 0 never waits. */
  readonly maxReadWait?: Duration.Input | undefined
  /** How long the walsender may take to end the stream in good order when we leave: 2 s. */
  readonly closeTimeout?: Duration.Input | undefined
  /** How long the running handler may take to end when the program is interrupted: 5 s. Then it is interrupted. */
  readonly shutdownTimeout?: Duration.Input | undefined
  /**
   * How often at most the server is asked how far its WAL goes, where the stream cannot tell and somebody looks at its health or
   * its metrics: 5 s. Over an ordinary session of its own, for some milliseconds; it takes none of `max_wal_senders`. 0 for never.
   */
  readonly askInterval?: Duration.Input | undefined
}

/** How much may be held in memory, in bytes. */
export interface Memory {
  /**
   * The longest message taken from the server: 1 GiB, which is more than PostgreSQL can send. A longer one fails with
   * `DecodeError` once its length is read. Whatever the limit, no memory is taken that is not filled: lower it where the
   * server is not to be trusted, or memory is dear, to a little more than the largest row.
   */
  readonly maxFrameLength?: number | undefined
  /** What may be gathered of one transaction where whole ones are handed over, in bytes of WAL messages: 64 MiB. */
  readonly maxTransactionBytes?: number | undefined
}

/**
 * Which slot is streamed, by which plugin, and with what patience; what to do when the slot is not there for us
 * ({@link SlotPolicy}); and what the consumer knows of its own position ({@link CheckpointOptions}).
 */
export interface StreamOptions extends CheckpointOptions {
  readonly slot: string
  readonly plugin: OutputPlugin
  /** Makes the slot when there is none. Left out, a missing slot is a failure: what it stood for is lost. */
  readonly createSlot?: "permanent" | "temporary" | undefined
  /**
   * Keeps the slot on standbys too, so that the stream goes on where one of them is promoted: `true` makes it so, also a slot
   * that is there, by ALTER_REPLICATION_SLOT before the stream starts; `false` undoes it; left out, it stays as it is.
   * PostgreSQL 17; before, `true` is `UnsupportedByServer`. Not for a temporary slot.
   */
  readonly failover?: boolean | undefined
  /** What to do when the slot is not there for us as we left it. */
  readonly slotPolicy?: SlotPolicy | undefined
  /**
   * Run on each connection before the stream is started, after publications are checked and before the slot is: to check
   * what a program relies on, declared tables above all. Its failure is the stream's; a `DeclarationMismatch` comes as
   * the `PublicationMismatch` that it is.
   *
   * @example
   * const check = (connection: ReplicantConnection) =>
   *   Table.checkPublication(connection, [Orders], { publications: ["orders"] })
   */
  readonly check?:
    | ((connection: ReplicantConnection) => Effect.Effect<unknown, ReplicationError | DeclarationMismatch>)
    | undefined
  /** How long to wait, for what. */
  readonly timing?: Timing | undefined
  /** How much may be held. */
  readonly memory?: Memory | undefined
}
