/** Every mangle of every kind of message, in an otherwise good stream, against the whole client: see `mangles.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fake from "../support/FakeWalSender.ts"
import { attack, filler, finishedLsn, frame, ids, refused } from "./Hostile.ts"
import { type MessageKind, streamingKinds, wholeKinds } from "./MessageKinds.ts"
import { type Mangle, mangles } from "./mangles.ts"

const attackWith = (
  { after, before, mode, payload, plugin }: MessageKind,
  mangle: Mangle,
  ...more: ReadonlyArray<Uint8Array>
) => attack([Fake.concat(before, mangle(payload), after), ...more], { plugin, mode })

const intact: Mangle = (payload) => frame("d", payload)

describe("a kind of message", () => {
  for (const kind of [...wholeKinds, ...streamingKinds]) {
    it.effect(`[F1, F2] ${kind.name} is understood where nothing is mangled`, () =>
      Effect.gen(function* () {
        const { error, flushes, seen } = yield* attackWith(kind, intact)
        assert.isUndefined(error)
        assert.deepStrictEqual([ids(seen)[0], ids(seen).at(-1)], [1, 3])
        assert.isTrue(flushes.every((flushed) => Fake.lsn(flushed) > Fake.lsn(finishedLsn)))
      })
    )
  }
})

describe("a message", () => {
  it("is mangled in forty ways", () => {
    assert.lengthOf(Object.keys(mangles), 40)
    assert.isAtLeast(wholeKinds.length, 9)
  })

  for (const [what, mangle] of Object.entries(mangles)) {
    it.effect(`[F1, F2, F3] with ${what} ends the stream, whichever of ${wholeKinds.length} kinds it is`, () =>
      Effect.forEach(
        wholeKinds,
        (kind) =>
          Effect.map(attackWith(kind, mangle, filler), (outcome) => refused(outcome, `${what} of ${kind.name}`)),
        { discard: true }
      )
    )

    it.effect(`[F1, F2, F3] of protocol 2 to 4 with ${what} ends the stream, in ${streamingKinds.length} cases`, () =>
      Effect.forEach(
        streamingKinds,
        (kind) =>
          Effect.map(attackWith(kind, mangle, filler), (outcome) => refused(outcome, `${what} of ${kind.name}`)),
        { discard: true }
      )
    )
  }
})
