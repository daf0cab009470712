/**
 * A stream that the server warns about: held back, and told so once; or short of a publication, which ends it; or neither.
 * What the catalog says of it is in `Stall.ts`.
 */
import * as Effect from "effect/Effect"
import { logText, PublicationNotFound, type ReplicationError } from "../ReplicationError.ts"
import type { CopyRead, Warning } from "./CopyData.ts"
import { logNotice, type ReplicationStream } from "./OpenStream.ts"
import { lackedBy, nameMissing, type Stall } from "./Stall.ts"

/** Tells that it is held back; the same reason once, though the server warns each time it looks. */
const hold = Effect.fnUntraced(function* (stream: ReplicationStream, stall: Stall, at: CopyRead["received"]) {
  const { by } = stream.held
  stream.held.by = { ...stall, at: by?.at ?? at }
  if (by?.reason === stall.reason) return
  const { reason, remedy } = stall
  yield* Effect.logWarning(logText(`the stream is stalled: ${reason}; remedy: ${remedy}`))
  yield* stream.onState({ _tag: "Stalled", reason, remedy })
})

/** Tells that it goes on. */
export const release = Effect.fnUntraced(function* (stream: ReplicationStream) {
  stream.held.by = undefined
  const { systemId, timeline } = stream.system
  yield* Effect.logInfo("the stream is not stalled any more")
  yield* stream.onState({ _tag: "Streaming", systemId, timeline })
})

/** Whether a read shows that the server does not wait any more: while it does its position stands still. */
export const hasGotOn = ({ held }: ReplicationStream, { batch, received }: CopyRead): boolean =>
  held.by !== undefined && (batch.changes.length > 0 || received > held.by.at)

/** Asks the catalog what a warning means. Fails where what is decoded lacks a publication; else the stream goes on. */
export const heedWarning = Effect.fnUntraced(function* (
  stream: ReplicationStream,
  { notice }: Warning,
  received: CopyRead["received"]
): Effect.fn.Return<void, PublicationNotFound> {
  const findings = yield* stream.askFindings
  const publications = lackedBy(notice, stream.publications, findings)
  if (publications.length > 0) {
    yield* logNotice(notice)
    return yield* new PublicationNotFound({ publications })
  }
  if (findings.stall !== undefined) return yield* hold(stream, findings.stall, received)
  // One like it that came as the wait ended, or nobody could be asked: what was told last stays so.
  if (stream.held.by === undefined) yield* logNotice(notice)
})

/** Of several publications the server names one, and its text is not ours to read: the catalog tells which are missing. */
export const refineMissing = (
  { askFindings, publications }: ReplicationStream,
  error: ReplicationError
): Effect.Effect<ReplicationError> =>
  error._tag === "PublicationNotFound" && publications.length > 1
    ? Effect.map(askFindings, (findings) => nameMissing(error, findings))
    : Effect.succeed(error)
