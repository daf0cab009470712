/** A read that a lost connection cuts short, of a stream with requests: nothing behind what was left out is handed over. */
import { assert, describe, it } from "@effect/vitest"
import { type Change, Handler, type Snapshot } from "@replicant/core"
import { Effect } from "effect"
import { ControlState, request } from "../../src/rereading/Control.ts"
import { markPrefix } from "../../src/rereading/TableReader.ts"
import type { Read, Session } from "../../src/stream/Handler.ts"
import { withRequests } from "../../src/stream/Requests.ts"

/** What matters of a change here is which one it is. */
const named = (prefix: string) =>
  ({ _tag: "Message", transactional: true, prefix, content: new Uint8Array() }) as unknown as Change

const read = (...changes: ReadonlyArray<Change>) => ({ changes, bytes: 1 }) as unknown as Read<Change>

const a = named("a")
const b = named("b")
const c = named("c")
/** Of another stream, or of a process before this one. */
const foreignMark = named(markPrefix)

describe("a stream with requests", () => {
  it.effect("hands nothing over behind what it has left out, be it that nothing is requested any more", () =>
    Effect.gen(function* () {
      const control = new ControlState("t")
      let isOver = false
      const session = {
        isOver: () => isOver,
        durable: Effect.succeed(0n),
        acknowledge: () => Effect.void,
        acknowledgeThrough: () => Effect.void
      } as unknown as Session
      const asked = yield* request(control, { table: "public.t" })
      const given: Array<Change> = []
      const handler = Handler.make<Change | Snapshot.ChangeAfterSnapshot, never, never>(() =>
        Effect.succeed(({ changes }) =>
          Effect.gen(function* () {
            given.push(...(changes as ReadonlyArray<Change>))
            if (!changes.includes(a)) return
            // The connection is lost while this part is at work, and the last request ends.
            isOver = true
            yield* asked.cancel
          })
        )
      )
      const consume = yield* Effect.scoped(withRequests(control, handler).make(session))
      yield* consume(read(a, foreignMark, b))
      assert.isTrue(control.isIdle)
      yield* consume(read(c))
      assert.deepStrictEqual(given, [a])
    })
  )
})
