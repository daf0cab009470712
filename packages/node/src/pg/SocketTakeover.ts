/**
 * The socket of a `pg` client, taken from it for good: what is said on it from then on are bytes. That an answer comes is
 * watched as before, but on a stream, which may be silent.
 */
import type { ReplicationError } from "@replicant/core"
import { type CopyBoth, type CopyBothOptions, FrontendMessage } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import { type PgClient, withoutNul } from "./PgClient.ts"
import { connectionError, queryFailure } from "./PgServerError.ts"
import { readOnDemand } from "./ReadOnDemand.ts"

const isClosed = ({ connection }: PgClient): boolean => connection.stream.destroyed || !connection.stream.writable

/** Waits for the next bytes, or the end. */
const somethingHappens = ({ connection }: PgClient): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const { stream } = connection
    const stopListening = (): void => {
      stream.off("data", happened)
      stream.off("close", happened)
    }
    const happened = (): void => {
      stopListening()
      resume(Effect.void)
    }
    stream.on("data", happened)
    stream.on("close", happened)
    return Effect.sync(stopListening)
  })

/** An answer wakes its fiber from within `pg`'s parser, with the rest of what was read still before it. */
const parserReturns: Effect.Effect<void> = Effect.callback((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/** Takes the socket from `pg` once every answer has come, and no part of a message is left in its parser. */
const takeSocket = Effect.fnUntraced(function* (self: PgClient): Effect.fn.Return<CopyBoth, ReplicationError> {
  const { config, connection, frames } = self
  yield* parserReturns
  while (!isClosed(self) && (self.unanswered > 0 || frames.pending > 0)) yield* somethingHappens(self)
  if (isClosed(self)) return yield* queryFailure(self.lost, config)
  self.isTaken = true
  connection.stream.removeAllListeners("data")
  return readOnDemand(connection.stream, (thrown) => connectionError(thrown ?? self.lost, config))
})

/** Something is due while this runs. */
const due = <A, E>(self: PgClient, step: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    self.isPulling = true
    self.waits += 1
    return Effect.onExit(step, () =>
      Effect.sync(() => {
        self.isPulling = false
      })
    )
  })

/** Takes the socket over and sends `command`: what comes back is for the first pull. */
export const copyBoth = Effect.fnUntraced(function* (
  self: PgClient,
  command: string,
  { mayBeSilent = false }: CopyBothOptions = {}
): Effect.fn.Return<CopyBoth, ReplicationError> {
  yield* withoutNul(command)
  const copy = yield* takeSocket(self)
  yield* copy.send(FrontendMessage.query(command))
  const watched: CopyBoth = { pull: due(self, copy.pull), send: (bytes) => due(self, copy.send(bytes)) }
  if (!mayBeSilent) return watched
  // That the command was taken is told at once.
  let hasHeard = false
  const first = Effect.tap(watched.pull, () => {
    hasHeard = true
    return Effect.void
  })
  return { pull: Effect.suspend(() => (hasHeard ? copy.pull : first)), send: copy.send }
})
