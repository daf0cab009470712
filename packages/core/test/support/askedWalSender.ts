/** A walsender that is only asked, in SQL: what it is asked is noted, and answered as a test says. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { portableText } from "../../src/protocol/ByteReader.ts"
import type { ReplicationError } from "../../src/ReplicationError.ts"
import { type QueryRow, type ReplicantConnection, WalSender } from "../../src/server/WalSender.ts"

export type Answer = Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError>

/** Settings are taken. All else `answer` gives, or the test has made a mistake. */
export const askedWalSender = (answer: (text: string) => Answer | undefined, serverVersion = 180_000) => {
  const texts: Array<string> = []
  const opened: Array<"connection" | "session"> = []
  let open = 0
  const connection: ReplicantConnection = {
    serverVersion,
    slices: portableText,
    query: (text) =>
      Effect.suspend(() => {
        if (text.startsWith("SET ")) return Effect.succeed([])
        texts.push(text)
        return answer(text) ?? Effect.die(new Error(`no answer to ${text}`))
      }),
    copyBoth: () => Effect.die(new Error("it is only asked"))
  }
  const opening = (kind: "connection" | "session") =>
    Effect.acquireRelease(
      Effect.sync(() => {
        opened.push(kind)
        open++
        return connection
      }),
      () => Effect.sync(() => void open--)
    )
  return {
    connection,
    /** All that it was asked so far. */
    texts,
    /** What was opened so far. */
    opened,
    /** How many of them are open still. */
    open: () => open,
    layer: Layer.succeed(WalSender, WalSender.of({ connect: opening("connection"), openSession: opening("session") }))
  }
}
