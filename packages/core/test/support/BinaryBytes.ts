/** Values in binary format, written by hand, and what a printer of them makes of each. */
import { assert } from "@effect/vitest"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import type { TextOf } from "../../src/values/BinaryText.ts"
import { decodeErrorOf, message, type Part } from "./PgoutputBytes.ts"

/** The text of a value that stands between other bytes; insists that all of it was read. */
export const textOf = (text: TextOf, ...parts: ReadonlyArray<Part>): string => {
  const bytes = message(...parts)
  const whole = Buffer.concat([Buffer.alloc(3, 0x7f), bytes, Buffer.alloc(40, 0x7f)])
  const reader = new ByteReader().reset(whole, 3, 3 + bytes.length)
  const result = text(reader)
  reader.expectEnd()
  assert.strictEqual(reader.end, 3 + bytes.length)
  return result
}

/** What is wrong with a value. */
export const problemOf = (text: TextOf, ...parts: ReadonlyArray<Part>): string =>
  decodeErrorOf(() => textOf(text, ...parts)).problem

/** Every cut of a value, and a byte behind it, must fail: never be another value. */
export const assertExact = (text: TextOf, ...parts: ReadonlyArray<Part>): void => {
  const bytes = message(...parts)
  textOf(text, bytes)
  for (let end = 0; end < bytes.length; end++) problemOf(text, bytes.subarray(0, end))
  problemOf(text, bytes, [1, 0])
}
