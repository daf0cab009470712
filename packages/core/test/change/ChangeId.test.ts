import { assert, describe, it } from "@effect/vitest"
import type { Change, RelationChanged } from "../../src/change/Change.ts"
import { changeId } from "../../src/change/ChangeId.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { begin, commit, decodeAll, insert, relation } from "../support/PgoutputBytes.ts"
import { Random } from "../support/Random.ts"
import { beginPrepare, commitPrepared, prepare, rollbackPrepared } from "../support/StreamingBytes.ts"

const content = new Uint8Array(1)

/**
 * What a server may send in that order. Of two records often the second begins where the first ends, and what is sent of a
 * transaction counts up to twenty, so that no digit of an ordinal is the only one.
 */
const stream = (random: Random): ReadonlyArray<Uint8Array> => {
  let at = 0xff_ffff_ff00n
  const record = () => {
    const start = at + BigInt(random.chance(60) ? 0 : random.below(0x2_0000_0000))
    at = start + 8n + BigInt(random.below(100))
    return { lsn: start, endLsn: at, gid: "g", xid: 7 }
  }
  const rows = () =>
    Array.from({ length: random.below(20) }, (_, index) =>
      random.chance(20)
        ? Bytes.logicalMessage({ isTransactional: true, lsn: at, prefix: "p", content })
        : random.chance(10)
          ? Bytes.truncate({ oids: [1], cascade: false, restartIdentity: false })
          : insert(1, String(index))
    )
  const units = Array.from({ length: 300 }, () => {
    const place = record()
    switch (random.below(5)) {
      case 0:
        return [Bytes.logicalMessage({ isTransactional: false, lsn: place.endLsn, prefix: "p", content })]
      case 1:
        return [beginPrepare(place), ...rows(), prepare(place)]
      case 2:
        return [random.chance(50) ? commitPrepared(place) : rollbackPrepared(place)]
      default:
        return [begin(place.lsn), ...rows(), commit(place.lsn, place.endLsn)]
    }
  })
  return [relation(1, [{ name: "a", typeOid: 23 }]), ...units.flat()]
}

const decoded = (messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Change> =>
  decodeAll(messages, {}, Pgoutput.make({ publications: ["p"], twoPhase: true }).makeDecoder(portableText))

describe("changeId", () => {
  it("is unique and sorts as delivered, over random streams", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const changes = decoded(stream(new Random(seed)))
      const ids = changes.flatMap((change) => changeId(change) ?? [])
      assert.isAbove(ids.length, 1000)
      assert.strictEqual(ids.length, changes.filter(({ _tag }) => _tag !== "Begin").length)
      assert.strictEqual(new Set(ids).size, ids.length, `seed ${seed}`)
      assert.deepStrictEqual(ids, ids.toSorted(), `seed ${seed}`)
    }
  })

  it("begins with the commit's place, and needs no name to be known but of what it is given", () => {
    const [opened, inserted, committed] = decoded([
      relation(1, [{ name: "a", typeOid: 23 }]),
      begin(0x1928f40n),
      insert(1, "1"),
      commit(0x1928f40n, 0x1928f70n)
    ])
    assert.strictEqual(
      inserted?._tag === "Insert" && changeId({ ...inserted, ordinal: 42 }),
      "0000000001928F40-0000002A"
    )
    assert.strictEqual(committed?._tag === "Commit" && changeId(committed), "0000000001928F70")
    assert.isUndefined(changeId(opened!))
  })

  it("is not given to what has no place that stays, and the compiler knows", () => {
    const none = (change: RelationChanged): undefined => changeId(change)
    const known = (change: Extract<Change, { readonly _tag: "Insert" | "Message" | "Commit" }>): string =>
      changeId(change)
    const maybe = (change: ChangeInProgress): string | undefined => changeId(change)
    assert.isTrue([none, known, maybe].every((each) => typeof each === "function"))
    for (const _tag of [
      "Begin",
      "RelationChanged",
      "Gap",
      "Streamed",
      "StreamStart",
      "SnapshotRow",
      "TableSnapshotStarted"
    ]) {
      assert.isUndefined(changeId({ _tag }))
    }
  })
})
