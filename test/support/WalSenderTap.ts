/**
 * Listens in on Replicant's own connections: every command it starts a copy with, every message it was sent and every
 * status update it sent, in order. What a test cannot see from the outside, namely what was never said, it sees here.
 */
import { type CopyBoth, Frames, type ReplicantConnection, WalSender } from "@replicant/core/driver"
import { Effect, Layer } from "effect"
import { ByteReader } from "../../packages/core/src/protocol/ByteReader.ts"
import {
  decodeReplicationMessage,
  decodeStandbyMessage,
  type PrimaryKeepAlive,
  type StandbyStatusUpdate,
  type XLogData
} from "../../packages/core/src/protocol/ReplicationMessage.ts"
import { eventually } from "./eventually.ts"

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

export interface TapOptions {
  /** After such a message Replicant is given nothing more until it has sent another status update. */
  readonly holdAfter?: ((message: XLogData | PrimaryKeepAlive) => boolean) | undefined
}

/** Walks CopyData frames of one direction. What is no copy data is passed over. */
const eachCopyData = (frames: Frames, bytes: Uint8Array, use: (reader: ByteReader) => void): void => {
  // A copy: frames keep what they are lent until the next push, and these bytes belong to somebody else.
  frames.push(bytes.slice())
  while (frames.next()) {
    if (frames.tag === 0x64 /* d */) use(new ByteReader().reset(frames.bytes, frames.start, frames.end))
  }
}

/** The whole frames in what is pulled, one a pull, and a wait for `isFree` before each. */
const frameByFrame = (pull: CopyBoth["pull"], isFree: () => boolean): CopyBoth["pull"] => {
  const frames = new Frames()
  const whole: Array<Uint8Array> = []
  const headerLength = 5
  return Effect.gen(function* () {
    while (whole.length === 0) {
      frames.push((yield* pull).slice())
      while (frames.next()) whole.push(frames.bytes.slice(frames.start - headerLength, frames.end))
    }
    yield* Effect.orDie(eventually(Effect.sync(isFree), { what: "a status update was sent" }))
    return whole.shift()!
  })
}

/** Puts a tap between Replicant and a walsender. */
export const tapWalSender = <E, R>(walSender: Layer.Layer<WalSender, E, R>, { holdAfter }: TapOptions = {}) =>
  Effect.gen(function* () {
    const inner = yield* WalSender
    const said: Array<Said> = []
    const isFree = (): boolean => {
      const last = said.at(-1)
      const isHeld = last?._tag === "XLogData" || last?._tag === "PrimaryKeepAlive" ? holdAfter?.(last) : false
      return isHeld !== true
    }
    const tapped = (copy: CopyBoth): CopyBoth => {
      const [heard, spoken] = [new Frames(), new Frames()]
      const pull = holdAfter === undefined ? copy.pull : frameByFrame(copy.pull, isFree)
      return {
        pull: Effect.tap(pull, (bytes) =>
          Effect.sync(() => eachCopyData(heard, bytes, (reader) => said.push(decodeReplicationMessage(reader))))
        ),
        send: (bytes) => {
          eachCopyData(spoken, bytes, (reader) => {
            const message = decodeStandbyMessage(reader)
            if (message._tag === "StandbyStatusUpdate") said.push(message)
          })
          return copy.send(bytes)
        }
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
      layer: Layer.succeed(WalSender, { ...inner, connect: Effect.map(inner.connect, tappedConnection) })
    }
    return tap
  }).pipe(Effect.provide(walSender))
