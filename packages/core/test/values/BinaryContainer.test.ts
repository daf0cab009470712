import { assert, describe, it } from "@effect/vitest"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { arrayText, multirangeText, rangeText, readArray, vectorText } from "../../src/values/BinaryContainer.ts"
import { int4Text } from "../../src/values/BinaryNumber.ts"
import { utf8Text } from "../../src/values/BinaryText.ts"
import { assertExact, problemOf, textOf } from "../support/BinaryBytes.ts"
import { decodeErrorOf, message, type Part } from "../support/PgoutputBytes.ts"

/** An array: the type of its elements, sizes with lower bounds, and elements. */
const array = (
  oid: number,
  dimensions: ReadonlyArray<readonly [size: number, lowerBound: number]>,
  ...elements: ReadonlyArray<string | number | null>
): Uint8Array =>
  message(
    [4, dimensions.length],
    [4, elements.includes(null) ? 1 : 0],
    [4, oid],
    ...dimensions.flatMap(
      ([size, bound]): ReadonlyArray<Part> => [
        [4, size],
        [4, bound]
      ]
    ),
    ...elements.flatMap((element): ReadonlyArray<Part> => {
      if (element === null) return [[4, -1]]
      const bytes = typeof element === "number" ? message([4, element]) : message(element)
      return [[4, bytes.length], bytes]
    })
  )

const texts = arrayText(utf8Text, 25, ",")
const integers = arrayText(int4Text, 23, ",")
const nested = (bytes: Uint8Array, oid: number | "untold" = 23): ReadonlyArray<unknown> => {
  const reader = ByteReader.over(bytes)
  const value = readArray(reader, (each) => each.int32(), oid === "untold" ? undefined : oid)
  reader.expectEnd()
  return value
}

describe("an array", () => {
  it("is nested as it has dimensions, without its lower bounds, with null for NULL", () => {
    assert.deepStrictEqual(nested(array(23, [])), [])
    assert.deepStrictEqual(nested(array(23, [[2, 0]], 1, null)), [1, null])
    assert.deepStrictEqual(
      nested(
        array(
          23,
          [
            [2, 1],
            [3, 1]
          ],
          1,
          2,
          3,
          4,
          5,
          6
        )
      ),
      [
        [1, 2, 3],
        [4, 5, 6]
      ]
    )
    assert.deepStrictEqual(
      nested(
        array(
          23,
          [
            [1, 1],
            [1, 1],
            [1, 1],
            [1, 1],
            [1, 1],
            [2, 1]
          ],
          1,
          2
        )
      ),
      [[[[[[1, 2]]]]]]
    )
  })

  it("prints its bounds where a lower one is not 1", () => {
    assert.strictEqual(textOf(integers, array(23, [[2, 0]], 1, null)), "[0:1]={1,NULL}")
    assert.strictEqual(
      textOf(
        integers,
        array(
          23,
          [
            [1, 1],
            [2, -1]
          ],
          1,
          2
        )
      ),
      "[1:1][-1:0]={{1,2}}"
    )
    assert.strictEqual(textOf(integers, array(23, [[1, 1]], 1)), "{1}")
    assert.strictEqual(textOf(integers, array(23, [])), "{}")
  })

  it("quotes what would be read otherwise, and nothing else", () => {
    const elements = ["NULL", "null", null, "", " ", "a,b", 'q"', "back\\", "{", "a;b", "nullify", "\u00a0", "é", "\v"]
    assert.strictEqual(
      textOf(texts, array(25, [[elements.length, 1]], ...elements)),
      '{"NULL","null",NULL,""," ","a,b","q\\"","back\\\\","{",a;b,nullify,\u00a0,é,"\v"}'
    )
    const boxes = arrayText(utf8Text, 603, ";")
    assert.strictEqual(textOf(boxes, array(603, [[2, 1]], "(1,1),(0,0)", "a;b")), '{(1,1),(0,0);"a;b"}')
  })

  it("is a DecodeError when cut anywhere, and when a byte follows", () => {
    const bytes = array(
      23,
      [
        [2, 1],
        [2, 1]
      ],
      1,
      2,
      null,
      4
    )
    assertExact(integers, bytes)
    for (let end = 0; end < bytes.length; end++) decodeErrorOf(() => nested(bytes.subarray(0, end)))
  })

  it("is not believed to be larger than its bytes", () => {
    const huge = [0x7fff_ffff, 1] as const
    for (const dimensions of [[huge], [huge, huge], [[1, 1], huge], Array.from({ length: 6 }, () => huge)] as const) {
      assert.include(problemOf(integers, array(23, dimensions, 1)), "than there are bytes for")
      assert.include(decodeErrorOf(() => nested(array(23, dimensions, 1))).problem, "than there are bytes for")
    }
    assert.deepStrictEqual(nested(array(23, [huge, [0, 1]])), [])
  })

  it("is of the type its column is of, where that is known", () => {
    assert.include(problemOf(integers, array(25, [[1, 1]], 1)), "of another type")
    assert.deepStrictEqual(nested(array(99_999, [[1, 1]], 7), "untold"), [7])
    assert.include(problemOf(integers, message([4, 7], [4, 0], [4, 23])), "more than six dimensions")
    assert.include(problemOf(integers, message([4, 0], [4, 2], [4, 23])), "unknown flags")
  })
})

describe("vectors and ranges", () => {
  it("print as PostgreSQL prints them", () => {
    assert.strictEqual(textOf(vectorText(int4Text, 23), array(23, [[3, 0]], 1, -2, 3)), "1 -2 3")
    assert.strictEqual(textOf(vectorText(int4Text, 23), array(23, [[0, 0]])), "")
    const bound = (value: number): ReadonlyArray<Part> => [
      [4, 4],
      [4, value]
    ]
    const range = rangeText(int4Text)
    assert.strictEqual(textOf(range, [1, 0x01]), "empty")
    assert.strictEqual(textOf(range, [1, 0x02], ...bound(1), ...bound(10)), "[1,10)")
    assert.strictEqual(textOf(range, [1, 0x04 | 0x08], ...bound(10)), "(,10]")
    assert.strictEqual(textOf(range, [1, 0x18]), "(,)")
    assertExact(range, [1, 0x02], ...bound(1), ...bound(10))
    const one = message([1, 0x02], ...bound(1), ...bound(3))
    const multirange = multirangeText(int4Text)
    assert.strictEqual(textOf(multirange, [4, 2], [4, one.length], one, [4, one.length], one), "{[1,3),[1,3)}")
    assert.strictEqual(textOf(multirange, [4, 0]), "{}")
    assertExact(multirange, [4, 1], [4, one.length], one)
  })

  it("quote bounds with spaces, brackets, quotes, or nothing in them", () => {
    const bound = (text: string): ReadonlyArray<Part> => [[4, Buffer.byteLength(text)], text]
    const range = rangeText(utf8Text)
    assert.strictEqual(textOf(range, [1, 0x06], ...bound("a b"), ...bound('"\\')), '["a b","""\\\\"]')
    assert.strictEqual(textOf(range, [1, 0x06], ...bound(""), ...bound("plain")), '["",plain]')
  })

  it("are none of unknown flags, and not believed to be more than their bytes", () => {
    assert.include(problemOf(rangeText(int4Text), [1, 0x20]), "unknown flags")
    assert.include(problemOf(multirangeText(int4Text), [4, 0x7fff_ffff]), "than there are bytes for")
    assert.include(problemOf(multirangeText(int4Text), [4, -1]), "than there are bytes for")
    assert.include(
      problemOf(
        vectorText(int4Text, 23),
        array(
          23,
          [
            [1, 1],
            [1, 1]
          ],
          1
        )
      ),
      "more than one dimension"
    )
  })
})
