/**
 * A replication session spoken by hand: commands sent as they are, everything the walsender says kept in order, and
 * only those status updates that a test sends. It shows what the server does by itself, so it is not a client: it
 * answers nothing and acknowledges nothing of its own accord.
 */
import { Lsn, PgTimestamp, type ReplicationError } from "@replicant/core"
import {
  Frames,
  FrontendMessage,
  type ReplicantConnection,
  type ServerMessage,
  WalSender
} from "@replicant/core/driver"
import { type PgConfig, PgWalSender } from "@replicant/node"
import { Effect, Redacted, type Scope } from "effect"
import * as BackendMessage from "../../packages/core/src/protocol/BackendMessage.ts"
import { ByteReader } from "../../packages/core/src/protocol/ByteReader.ts"
import {
  decodeReplicationMessage,
  encodeStandbyStatusUpdate,
  type PrimaryKeepAlive,
  type XLogData
} from "../../packages/core/src/protocol/ReplicationMessage.ts"
import { eventually } from "./eventually.ts"

/** What a walsender says, and `Closed` for the end of the connection, which is always the last. */
export type Heard =
  | XLogData
  | PrimaryKeepAlive
  | { readonly _tag: "CopyBothResponse" }
  | { readonly _tag: "NoticeResponse"; readonly message: ServerMessage }
  | { readonly _tag: "ErrorResponse"; readonly message: ServerMessage }
  | { readonly _tag: "CopyDone" }
  | { readonly _tag: "CommandComplete"; readonly command: string }
  | { readonly _tag: "ReadyForQuery" }
  | { readonly _tag: "Closed" }

/** A copy stream in both directions, without a client behind it. */
export interface RawStream {
  /** All that was said so far. */
  readonly heard: ReadonlyArray<Heard>
  /** Waits until something like it has been said, and gives the first such. */
  readonly hears: <A extends Heard>(what: string, is: (heard: Heard) => heard is A) => Effect.Effect<A, unknown>
  /** A status update; `written` and `applied` go with `flushed`. With `ping` it asks for a keep-alive in return. */
  readonly acknowledge: (
    flushed: Lsn.Lsn,
    options?: { readonly ping?: boolean | undefined }
  ) => Effect.Effect<void, ReplicationError>
  /**
   * Waits until the walsender has sent everything before `lsn`, by its own word: it is pinged, and told nothing else.
   */
  readonly sentThrough: (lsn: Lsn.Lsn) => Effect.Effect<void, unknown>
}

/** A replication connection as a superuser, unless options say otherwise. */
export const connectRaw = (
  url: string,
  options: Partial<PgConfig.Options> = {}
): Effect.Effect<ReplicantConnection, ReplicationError, Scope.Scope> =>
  Effect.flatMap(WalSender, (walSender) => walSender.connect).pipe(
    Effect.provide(PgWalSender.layer({ url: Redacted.make(url), ...options }))
  )

/** Tells what was heard by its `_tag`. */
export const isA =
  <Tag extends Heard["_tag"]>(tag: Tag) =>
  (heard: Heard): heard is Extract<Heard, { readonly _tag: Tag }> =>
    heard._tag === tag

const decodeFrame = (frames: Frames): Heard => {
  const reader = new ByteReader().reset(frames.bytes, frames.start, frames.end)
  switch (frames.tag) {
    case BackendMessage.copyDataTag:
      return decodeReplicationMessage(reader)
    case BackendMessage.errorResponseTag:
      return { _tag: "ErrorResponse", message: BackendMessage.decodeServerMessage(reader) }
    case BackendMessage.noticeResponseTag:
      return { _tag: "NoticeResponse", message: BackendMessage.decodeServerMessage(reader) }
    case BackendMessage.commandCompleteTag:
      return { _tag: "CommandComplete", command: reader.cstring() }
    case BackendMessage.copyBothResponseTag:
      return { _tag: "CopyBothResponse" }
    case BackendMessage.copyDoneTag:
      return { _tag: "CopyDone" }
    case BackendMessage.readyForQueryTag:
      return { _tag: "ReadyForQuery" }
    default:
      throw new Error(`the walsender sent a message of type ${String.fromCharCode(frames.tag)}`)
  }
}

/** A START_REPLICATION as PostgreSQL's own subscriber would send it, under protocol 1. */
export const startCommand = (slot: string, publication: string, from = "0/0"): string =>
  `START_REPLICATION SLOT "${slot}" LOGICAL ${from} (proto_version '1', publication_names '"${publication}"')`

/**
 * Sends a START_REPLICATION and listens for as long as the scope lives. A refusal is heard like all else, and whatever
 * is heard may be answered at once. After this the connection is used up.
 */
export const startRaw = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  command: string,
  answer: (said: Heard, stream: RawStream) => Effect.Effect<void, ReplicationError> = () => Effect.void
): Effect.fn.Return<RawStream, ReplicationError, Scope.Scope> {
  const copy = yield* connection.copyBoth(command)
  const heard: Array<Heard> = []
  const frames = new Frames()
  const acknowledge: RawStream["acknowledge"] = (flushed, { ping = false } = {}) =>
    copy.send(
      FrontendMessage.copyData(
        encodeStandbyStatusUpdate({
          written: flushed,
          flushed,
          applied: flushed,
          sendTime: PgTimestamp.make(0),
          replyRequested: ping
        })
      )
    )
  const stream: RawStream = {
    heard,
    acknowledge,
    hears: (what, is) =>
      eventually(
        Effect.sync(() => heard.find(is)),
        { what: `the walsender sent ${what}` }
      ) as Effect.Effect<never, unknown>,
    sentThrough: (lsn) =>
      eventually(
        Effect.map(acknowledge(Lsn.zero, { ping: true }), () =>
          // Of a slot that was confirmed far ahead the walsender first tells that place, and only then where it reads.
          heard.some(
            (said) => said._tag === "PrimaryKeepAlive" && said.walEnd >= lsn && said.walEnd < lsn + 0x1_0000_0000n
          )
        ),
        { what: `the walsender has sent all before ${Lsn.format(lsn)}` }
      )
  }
  const listen = Effect.gen(function* () {
    while (true) {
      frames.push(yield* copy.pull)
      while (frames.next()) {
        const said = decodeFrame(frames)
        heard.push(said)
        yield* answer(said, stream)
      }
    }
  })
  yield* Effect.forkScoped(Effect.catch(listen, () => Effect.sync(() => heard.push({ _tag: "Closed" }))))
  return stream
})

/** One message of pgoutput, as far as raw sessions look into it. */
export interface RawMessage {
  /** `B`, `R`, `I`, … */
  readonly letter: string
  readonly walStart: Lsn.Lsn
  readonly walEnd: Lsn.Lsn
  readonly bytes: Uint8Array
}

/** What the plugin said, frame by frame. */
export const pluginMessages = (heard: ReadonlyArray<Heard>): ReadonlyArray<RawMessage> =>
  heard.filter(isA("XLogData")).map(({ walData, walEnd, walStart }) => ({
    letter: String.fromCharCode(walData[0]!),
    walStart,
    walEnd,
    bytes: walData
  }))

/**
 * The text of the first column of every insert under protocol 1: `I`, Int32 OID, `N`, Int16 count, `t`, Int32 length.
 */
export const insertedTexts = (heard: ReadonlyArray<Heard>): ReadonlyArray<string> =>
  pluginMessages(heard)
    .filter(({ letter }) => letter === "I")
    .map(({ bytes }) => {
      const length = new DataView(bytes.buffer, bytes.byteOffset).getInt32(9)
      return new TextDecoder().decode(bytes.subarray(13, 13 + length))
    })

/** Where every commit stands, and ends: `C`, Int8 flags, Int64 commit LSN, Int64 end LSN. */
export const commits = (
  heard: ReadonlyArray<Heard>
): ReadonlyArray<{ readonly commitLsn: Lsn.Lsn; readonly endLsn: Lsn.Lsn }> =>
  pluginMessages(heard)
    .filter(({ letter }) => letter === "C")
    .map(({ bytes }) => {
      const reader = ByteReader.over(bytes)
      reader.skip(2)
      return { commitLsn: reader.lsn(), endLsn: reader.lsn() }
    })
