import { assert, describe, it } from "@effect/vitest"
import * as BinaryGeometry from "../../src/values/BinaryGeometry.ts"
import * as BinaryNetwork from "../../src/values/BinaryNetwork.ts"
import * as BinaryText from "../../src/values/BinaryText.ts"
import { assertExact, problemOf, textOf } from "../support/BinaryBytes.ts"
import type { Part } from "../support/PgoutputBytes.ts"

const one: Part = [8, 0x3ff0_0000_0000_0000n]
const two: Part = [8, 0x4000_0000_0000_0000n]
const address = (
  family: number,
  bits: number,
  isCidr: number,
  ...bytes: ReadonlyArray<number>
): ReadonlyArray<Part> => [Uint8Array.of(family, bits, isCidr, bytes.length, ...bytes)]
const groups = (...values: ReadonlyArray<number>) => values.flatMap((value) => [value >> 8, value & 0xff])

describe("the text of a value in binary format", () => {
  const cases: ReadonlyArray<readonly [text: string, of: BinaryText.TextOf, ...parts: ReadonlyArray<Part>]> = [
    ["t", BinaryText.booleanText, [1, 1]],
    ["f", BinaryText.booleanText, [1, 0]],
    ["\\351", BinaryText.charText, [1, 0xe9]],
    ["x", BinaryText.charText, "x"],
    ["", BinaryText.charText, [1, 0]],
    [
      "01020304-0506-0708-090a-0b0c0d0e0fff",
      BinaryText.uuidText,
      [8, 0x0102_0304_0506_0708n],
      [8, 0x090a_0b0c_0d0e_0fffn]
    ],
    ["101", BinaryText.bitText, [4, 3], [1, 0xa0]],
    ["11111111", BinaryText.bitText, [4, 8], [1, 0xff]],
    ["", BinaryText.bitText, [4, 0]],
    ["16/B374D848", BinaryText.lsnText, [8, 0x16_b374_d848n]],
    ["(4294967295,7)", BinaryText.tidText, [4, -1], [2, 7]],
    ["10:20:10,14", BinaryText.snapshotText, [4, 2], [8, 10], [8, 20], [8, 10], [8, 14]],
    [
      "'back\\\\slash':3C 'it''s':1A,2 'é'",
      BinaryText.tsvectorText,
      [4, 3],
      "back\\slash\0",
      [2, 1],
      [2, 0x4003],
      "it's\0",
      [2, 2],
      [2, 0xc001],
      [2, 2],
      "é\0",
      [2, 0]
    ],
    ["(1,2)", BinaryGeometry.pointText, one, two],
    ["(1,2),(2,1)", BinaryGeometry.boxText, one, two, two, one],
    ["[(1,2),(2,1)]", BinaryGeometry.lsegText, one, two, two, one],
    ["((1,2))", BinaryGeometry.pathText, [1, 1], [4, 1], one, two],
    ["[(1,2)]", BinaryGeometry.pathText, [1, 0], [4, 1], one, two],
    ["((1,2),(2,1))", BinaryGeometry.polygonText, [4, 2], one, two, two, one],
    ["{1,2,1}", BinaryGeometry.lineText, one, two, one],
    ["<(1,2),2>", BinaryGeometry.circleText, one, two, two],
    ["192.168.0.1/24", BinaryNetwork.inetText, ...address(2, 24, 0, 192, 168, 0, 1)],
    ["1.2.3.4", BinaryNetwork.inetText, ...address(2, 32, 0, 1, 2, 3, 4)],
    ["1.2.3.4/32", BinaryNetwork.cidrText, ...address(2, 32, 1, 1, 2, 3, 4)],
    ["::1", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(0, 0, 0, 0, 0, 0, 0, 1))],
    ["::/0", BinaryNetwork.cidrText, ...address(3, 0, 1, ...groups(0, 0, 0, 0, 0, 0, 0, 0))],
    ["::ffff:1.2.3.4", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(0, 0, 0, 0, 0, 0xffff, 0x102, 0x304))],
    ["::1.2.3.4", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(0, 0, 0, 0, 0, 0, 0x102, 0x304))],
    ["1:0:0:2::3", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(1, 0, 0, 2, 0, 0, 0, 3))],
    ["1:0:2:3:4:5:6:7", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(1, 0, 2, 3, 4, 5, 6, 7))],
    ["1::", BinaryNetwork.inetText, ...address(3, 128, 0, ...groups(1, 0, 0, 0, 0, 0, 0, 0))],
    ["08:00:2b:01:02:03", BinaryNetwork.macaddrText, Uint8Array.of(8, 0, 0x2b, 1, 2, 3)],
    ["08:00:2b:01:02:03:04:05", BinaryNetwork.macaddr8Text, Uint8Array.of(8, 0, 0x2b, 1, 2, 3, 4, 5)]
  ]
  for (const [text, of, ...parts] of cases) {
    it(`is ${text === "" ? "empty" : text}`, () => {
      assert.strictEqual(textOf(of, ...parts), text)
      assertExact(of, ...parts)
    })
  }

  it("is hex for bytea, and the bytes themselves for text, whatever their length", () => {
    assert.strictEqual(textOf(BinaryText.byteaText, Uint8Array.of(0, 0xff, 0x5c)), "\\x00ff5c")
    assert.strictEqual(textOf(BinaryText.byteaText), "\\x")
    assert.strictEqual(textOf(BinaryText.utf8Text, "naïve ☕"), "naïve ☕")
    assert.strictEqual(textOf(BinaryText.versionedText, [1, 1], '{"a": 1}'), '{"a": 1}')
  })

  const wrong: ReadonlyArray<readonly [problem: string, of: BinaryText.TextOf, ...parts: ReadonlyArray<Part>]> = [
    ["neither true nor false", BinaryText.booleanText, [1, 2]],
    ["not UTF-8", BinaryText.utf8Text, Uint8Array.of(0xff)],
    ["version 2", BinaryText.versionedText, [1, 2], "{}"],
    ["not that of its bytes", BinaryText.bitText, [4, 9], [1, 0]],
    ["not that of its bytes", BinaryText.bitText, [4, -1]],
    ["than its count tells", BinaryText.snapshotText, [4, 0x7fff_ffff], [8, 1], [8, 1]],
    ["than there are bytes for", BinaryText.tsvectorText, [4, 0x7fff_ffff]],
    ["than there are bytes for", BinaryGeometry.polygonText, [4, 0x7fff_ffff], one, two],
    ["neither open nor closed", BinaryGeometry.pathText, [1, 2], [4, 1], one, two],
    ["unknown family", BinaryNetwork.inetText, ...address(4, 32, 0, 1, 2, 3, 4)],
    ["another length than its family's", BinaryNetwork.inetText, ...address(3, 32, 0, 1, 2, 3, 4)],
    ["longer than its address", BinaryNetwork.inetText, ...address(2, 33, 0, 1, 2, 3, 4)],
    ["an inet for a cidr", BinaryNetwork.inetText, ...address(2, 32, 1, 1, 2, 3, 4)]
  ]
  for (const [problem, of, ...parts] of wrong) {
    it(`fails: ${problem} (${of.name || "printer"}, ${parts.length})`, () => {
      assert.include(problemOf(of, ...parts), problem)
    })
  }
})
