/**
 * Listens in on Replicant's own connections: every command it starts a copy with, every message it was sent and every
 * status update it sent, in order. What a test cannot see from the outside, namely what was never said, it sees here.
 */
import { type CopyBoth, Frames, type ReplicantConnection, WalSender } from "@replicant/core"
import { Effect, Layer } from "effect"
import { ByteReader } from "../../packages/core/src/protocol/ByteReader.ts"
import {
  decodeReplicationMessage,
  decodeStandbyMessage,
  type PrimaryKeepAlive,
  type StandbyStatusUpdate,
  type XLogData
} from "../../packages/core/src/protocol/ReplicationMessage.ts"

/** One thing said on a copy stream, or the command that began it. */
export type Said =
  | XLogData
  | PrimaryKeepAlive
  | StandbyStatusUpdate
  | { readonly _tag: "Start"; readonly command: string }

export interface WalSenderTap {
  readonly said: ReadonlyArray<Said>
  /** The commands alone: one a connection. */
  readonly starts: () => ReadonlyArray<string>
  readonly layer: Layer.Layer<WalSender>
}

/** CopyData frames of one direction, decoded; what is no copy data is passed over. */
const listener = (note: (reader: ByteReader) => void) => {
  const frames = new Frames()
  return (bytes: Uint8Array): void => {
    // A copy: the frames keep what they are lent until the next push, and these bytes belong to somebody else.
    frames.push(bytes.slice())
    while (frames.next()) {
      if (frames.tag === 0x64 /* d */) note(new ByteReader().reset(frames.bytes, frames.start, frames.end))
    }
  }
}

/** Puts a tap between Replicant and a walsender. */
export const tapWalSender = <E, R>(walSender: Layer.Layer<WalSender, E, R>) =>
  Effect.gen(function* () {
    const inner = yield* WalSender
    const said: Array<Said> = []
    const tapped = (copy: CopyBoth): CopyBoth => {
      const hear = listener((reader) => said.push(decodeReplicationMessage(reader)))
      const speak = listener((reader) => {
        const message = decodeStandbyMessage(reader)
        if (message._tag === "StandbyStatusUpdate") said.push(message)
      })
      return {
        pull: Effect.tap(copy.pull, (bytes) => Effect.sync(() => hear(bytes))),
        send: (bytes) =>
          Effect.andThen(
            Effect.sync(() => speak(bytes)),
            copy.send(bytes)
          )
      }
    }
    const tappedConnection = (connection: ReplicantConnection): ReplicantConnection => ({
      ...connection,
      copyBoth: (command) => {
        said.push({ _tag: "Start", command })
        return Effect.map(connection.copyBoth(command), tapped)
      }
    })
    const tap: WalSenderTap = {
      said,
      starts: () => said.flatMap((each) => (each._tag === "Start" ? [each.command] : [])),
      layer: Layer.succeed(WalSender, { connect: Effect.map(inner.connect, tappedConnection) })
    }
    return tap
  }).pipe(Effect.provide(walSender))
