import { assert, describe, it } from "@effect/vitest"
import { StreamWindow } from "../../src/cli/StreamWindow.ts"
import { lsn, message, snapshot, transaction } from "../support/Changes.ts"

const first = transaction("0/100", "0/130", 2)
const second = transaction("0/130", "0/160", 3)
const note = message("0/180", new Uint8Array(0))
const all = [...first, ...second, note]

describe("StreamWindow", () => {
  it("shows all without bounds, and acknowledges the last unit that ended", () => {
    const shown = new StreamWindow({}).take([...all, second[0]!])
    assert.lengthOf(shown.changes, all.length + 1)
    assert.strictEqual(shown.nextLsn?.lsn, lsn("0/180"))
    assert.isFalse(shown.isFinished)
  })

  it("ends with the transaction in which the limit is reached, never within one", () => {
    for (const [limit, shown] of [
      [1, 4],
      [2, 4],
      [3, 9],
      [5, 9],
      [6, 10]
    ] as const) {
      const taken = new StreamWindow({ limit }).take(all)
      assert.lengthOf(taken.changes, shown, `limit ${limit}`)
      assert.isTrue(taken.isFinished)
    }
  })

  it("counts across reads, also where a read ends within a transaction", () => {
    const window = new StreamWindow({ limit: 3 })
    const part = window.take([...first, ...second.slice(0, 3)])
    assert.isFalse(part.isFinished)
    assert.strictEqual(part.nextLsn?.lsn, lsn("0/130"))
    const rest = window.take([...second.slice(3), note])
    assert.lengthOf(rest.changes, 2)
    assert.isTrue(rest.isFinished)
    assert.strictEqual(rest.nextLsn?.lsn, lsn("0/160"))
  })

  it("counts a transaction once that a broken connection delivers again", () => {
    const window = new StreamWindow({ limit: 4 })
    window.take(second.slice(0, 3))
    window.take(second.slice(0, 4))
    assert.isFalse(window.take(second).isFinished)
  })

  it("shows nothing once it is finished", () => {
    const window = new StreamWindow({ limit: 1 })
    window.take(first)
    assert.deepStrictEqual(window.take(second), { changes: [], nextLsn: undefined, isFinished: true })
  })

  it("shows what was committed before the position, and nothing committed at it", () => {
    for (const [untilLsn, shown, isFinished] of [
      ["0/100", 0, true],
      ["0/101", 4, true],
      ["0/130", 4, true],
      ["0/131", 9, true],
      ["0/170", 9, true],
      ["0/180", 10, true],
      ["0/181", 10, false]
    ] as const) {
      const taken = new StreamWindow({ untilLsn: lsn(untilLsn) }).take(all)
      assert.lengthOf(taken.changes, shown, untilLsn)
      assert.strictEqual(taken.isFinished, isFinished, untilLsn)
    }
  })

  it("acknowledges nothing of a transaction that has not ended", () => {
    assert.isUndefined(new StreamWindow({}).take(first.slice(0, 2)).nextLsn)
  })

  describe("with a snapshot", () => {
    const rows = snapshot("0/90", [{ id: 1 }, { id: 2 }, { id: 3 }])

    it("counts its rows, and ends with it or after it, never within it", () => {
      for (const [limit, shown] of [
        [1, rows.length],
        [3, rows.length],
        [4, rows.length + first.length]
      ] as const) {
        const window = new StreamWindow({ limit })
        const taken = window.take(rows)
        assert.strictEqual(taken.isFinished, limit <= 3)
        assert.isUndefined(taken.nextLsn)
        assert.lengthOf([...taken.changes, ...window.take(all).changes], shown, `limit ${limit}`)
      }
    })

    it("ends at the very row of a snapshot by itself", () => {
      const taken = new StreamWindow({ limit: 2, isSnapshotOnly: true }).take(rows)
      assert.deepStrictEqual(taken, { changes: rows.slice(0, 3), nextLsn: undefined, isFinished: true })
    })

    it("counts anew what begins anew", () => {
      const window = new StreamWindow({ limit: 3, isSnapshotOnly: true })
      window.take(rows.slice(0, 3))
      assert.isFalse(window.take(snapshot("0/91", [{ id: 1 }, { id: 2 }], 2)).isFinished)
    })

    it("ends with it where the position lies before its seam", () => {
      assert.isTrue(new StreamWindow({ untilLsn: lsn("0/80") }).take(rows).isFinished)
      assert.isFalse(new StreamWindow({ untilLsn: lsn("0/91") }).take(rows).isFinished)
    })
  })
})
