/** What a process knows of a stream by sequences alone: what stands where, and whether somebody else has written. */
import { assert, describe, it } from "@effect/vitest"
import type { Message } from "@replicant/core/sink"
import { Sent } from "../../src/sink/Sent.ts"

const message = (n: number): Message => ({
  id: `0000000000000100-${n.toString(16).toUpperCase().padStart(8, "0")}`,
  systemId: "7",
  op: "c",
  to: "shop",
  key: undefined,
  value: `${n}`
})

const markOf = (n: number) => ({ id: message(n).id, systemId: "7" })

/** A record at 5, and two batches behind it: 6 and 7, then 8. */
const sending = () => {
  const sent = new Sent()
  sent.opened("family.1", 5, markOf(1))
  sent.sending(6, [message(2), message(3)])
  sent.sending(8, [message(4)])
  return sent
}

describe("Sent", () => {
  it("knows what is held last wherever the stream may end: at its record, and amid what is under way", () => {
    const sent = sending()
    assert.deepStrictEqual(sent.heldAt(5), { mark: markOf(1) })
    for (const [sequence, n] of [
      [6, 2],
      [7, 3],
      [8, 4]
    ] as const)
      assert.strictEqual(sent.heldAt(sequence)?.mark?.id, message(n).id)
    assert.isUndefined(sent.heldAt(9))
    assert.isUndefined(sent.heldAt(4))
  })

  it("forgets what is confirmed but for the last of it, which a renewed record stands for", () => {
    const sent = sending()
    sent.confirm(7)
    assert.isUndefined(sent.messageAt(6))
    assert.deepStrictEqual(sent.heldAt(7), { mark: markOf(3) })
    sent.confirm(8)
    sent.confirm(9)
    assert.deepStrictEqual(sent.heldAt(9), { mark: markOf(4) })
  })

  it("is alone where the stream ends with what it has sent, and not behind it or with another's message there", () => {
    const sent = sending()
    for (const [sequence, n] of [
      [5, 1],
      [7, 3],
      [8, 4]
    ] as const)
      assert.isTrue(sent.isAlone("family.9", sequence, markOf(n)), `${sequence}`)
    assert.isTrue(sent.isAlone("family.9", 8, undefined), "what has expired was its own")
    assert.isFalse(sent.isAlone("family.9", 7, markOf(9)))
    assert.isFalse(sent.isAlone("family.9", 9, markOf(9)))
    assert.isFalse(sent.isAlone("other.1", 8, markOf(4)))
  })

  it("takes a stream that went back for no other's work: its mark says what is lost", () => {
    const sent = sending()
    sent.confirm(8)
    assert.isTrue(sent.isAlone("family.9", 3, markOf(0)))
  })

  it("has nothing under way once it is opened anew, as that does not fit any more", () => {
    const sent = sending()
    sent.opened("family.2", 7, markOf(2))
    assert.isUndefined(sent.messageAt(8))
    assert.deepStrictEqual(sent.heldAt(7), { mark: markOf(2) })
  })
})
