/**
 * Numbers in PostgreSQL's binary format: to JavaScript numbers where the text format gives those, and to the very text its
 * output functions print where that is the value.
 *
 * Each function reads a whole value at `reader.offset` and moves past it; that nothing is left over is for the caller to
 * see to. They throw `DecodeError` and nothing else.
 *
 * Source: `numeric_send`, `get_str_from_var` in src/backend/utils/adt/numeric.c, and src/common/d2s.c, f2s.c
 */
import type { ByteReader } from "../protocol/ByteReader.ts"

/** The eight bytes of a double, of a bigint, or of a float and what lies behind it. */
const words = new Uint32Array(2)
const doubles = new Float64Array(words.buffer)
const singles = new Float32Array(words.buffer)
const signed = new BigInt64Array(words.buffer)
const unsigned = new BigUint64Array(words.buffer)
const low = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 0 : 1
const high = 1 - low

const wordAt = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!

const load = (bytes: Uint8Array, at: number): void => {
  words[high] = wordAt(bytes, at)
  words[low] = wordAt(bytes, at + 4)
}

/** Two bytes at `at`, which the caller has checked to be there; so for the others. */
export const int2At = (bytes: Uint8Array, at: number): number => ((bytes[at]! << 24) >> 16) | bytes[at + 1]!

export const int4At = wordAt

export const uint4At = (bytes: Uint8Array, at: number): number => wordAt(bytes, at) >>> 0

export const int8At = (bytes: Uint8Array, at: number): bigint => {
  load(bytes, at)
  return signed[0]!
}

export const float8At = (bytes: Uint8Array, at: number): number => {
  load(bytes, at)
  return doubles[0]!
}

/** The single as it is, not yet {@link shortestSingle}. */
const singleAt = (bytes: Uint8Array, at: number): number => {
  words[0] = wordAt(bytes, at)
  return singles[0]!
}

const singleOf = (bits: number): number => {
  words[0] = bits
  return singles[0]!
}

/** As many as {@link plainShortest} takes. */
const powersOfTen = Array.from({ length: 13 }, (_, exponent) => 10 ** exponent)

/** To the nearest whole number, and of two as near to the even one, as PostgreSQL has it. Takes none beyond 2^52. */
const roundHalfEven = (value: number): number => {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor
}

/**
 * The double that the shortest text of a single stands for: 0.1 for the single nearest to 0.1, which as a double is
 * 0.10000000149011612. The text format prints that text, and so everybody reads 0.1 there.
 *
 * Six digits that come out as the single are found by six digits, and nine always do. Strictly between the midpoints to
 * its neighbours, as PostgreSQL takes no text for it that is just as near to another single.
 */
export const shortestSingle = (value: number): number => {
  if (Number.isInteger(value) && Math.abs(value) < 0x100_0000) return value
  if (!Number.isFinite(value)) return value
  const single = Math.abs(value)
  singles[0] = single
  const bits = words[0]!
  const from = (single + singleOf(bits - 1)) / 2
  // The largest single has no finite neighbour above: as far again as the one below.
  const above = singleOf(bits + 1)
  const to = Number.isFinite(above) ? (single + above) / 2 : single + (single - from)
  const shortest = single >= 1e-4 && single < 1e9 ? plainShortest(single, from, to) : farShortest(single, from, to)
  return value < 0 ? -shortest : shortest
}

/** Here the product with a power of ten is exact (24 bits and 28), and so is what comes of rounding and dividing it. */
const plainShortest = (single: number, from: number, to: number): number => {
  let exponent = 5
  for (let ceiling = 10; single >= ceiling; ceiling *= 10) exponent -= 1
  for (let floor = 1; single < floor; floor /= 10) exponent += 1
  for (let digits = 6; ; digits++, exponent++) {
    const shift = powersOfTen[Math.abs(exponent)]!
    const rounded = exponent < 0 ? roundHalfEven(single / shift) * shift : roundHalfEven(single * shift) / shift
    if (digits === 9 || (rounded > from && rounded < to)) return rounded
  }
}

/** The smallest single of full precision: below it, fewer digits than six may do. */
const smallestNormal = 2 ** -126

const farShortest = (single: number, from: number, to: number): number => {
  for (let digits = single < smallestNormal ? 1 : 6; digits < 9; digits++) {
    const text = single.toExponential(digits - 1)
    const rounded = Number(text)
    if (rounded > from && rounded < to) return rounded
    // Below a power of two the next single is half as far as above it: the nearest text may miss, and the next one fit.
    const split = text.indexOf("e")
    const next = Number(text.slice(0, split).replace(".", "")) + 1
    const above = Number(`${next}e${Number(text.slice(split + 1)) - digits + 1}`)
    if (rounded < single && above < to) return above
  }
  return Number(single.toExponential(8))
}

export const float4At = (bytes: Uint8Array, at: number): number => shortestSingle(singleAt(bytes, at))

/**
 * The digits of a double in the notation of PostgreSQL: with an exponent from 10^`most` on and below 10^-4, of at least
 * two digits. `most` is 15 for doubles and 6 for singles.
 */
const numberText = (value: number, most: 6 | 15): string => {
  if (Number.isNaN(value)) return "NaN"
  if (value === 0) return Object.is(value, -0) ? "-0" : "0"
  const sign = value < 0 ? "-" : ""
  const size = Math.abs(value)
  if (size === Number.POSITIVE_INFINITY) return `${sign}Infinity`
  const text = most === 15 ? shortestDouble(size) : size.toExponential()
  const split = text.indexOf("e")
  const exponent = Number(text.slice(split + 1))
  const mantissa = text.slice(0, split)
  if (exponent < -4 || exponent >= most) {
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`
  }
  const digits = mantissa.replace(".", "")
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`
  return digits.length <= exponent + 1
    ? `${sign}${digits.padEnd(exponent + 1, "0")}`
    : `${sign}${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`
}

/**
 * The shortest digits, with an exponent. Where JavaScript takes a text that is just as near to the next double (1e23),
 * PostgreSQL goes on for another digit. Only whole numbers from 2^53 on have such texts.
 */
const shortestDouble = (size: number): string => {
  const shortest = size.toExponential()
  if (size <= Number.MAX_SAFE_INTEGER || size > 1e40) return shortest
  doubles[0] = size
  signed[0] = signed[0]! + 1n
  const exact = BigInt(size)
  const gap = BigInt(doubles[0]!) - exact
  const isBetween = (text: string): boolean => {
    const split = text.indexOf("e")
    const digits = text.slice(0, split).replace(".", "")
    const whole = BigInt(digits.padEnd(Number(text.slice(split + 1)) + 1, "0"))
    const distance = whole > exact ? whole - exact : exact - whole
    return distance * 2n !== gap
  }
  if (isBetween(shortest)) return shortest
  const start = shortest.indexOf("e") - 1
  for (let digits = start; digits < 16; digits++) {
    const text = size.toExponential(digits)
    if (Number(text) === size && isBetween(text)) return text
  }
  return size.toExponential(16)
}

export const float4Text = (reader: ByteReader): string => numberText(float4At(reader.bytes, reader.skip(4)), 6)

export const float8Text = (reader: ByteReader): string => numberText(float8At(reader.bytes, reader.skip(8)), 15)

export const int2Text = (reader: ByteReader): string => String(reader.int16())

export const int4Text = (reader: ByteReader): string => String(reader.int32())

export const uint4Text = (reader: ByteReader): string => String(reader.uint32())

export const int8Text = (reader: ByteReader): string => String(int8At(reader.bytes, reader.skip(8)))

/** `xid8`, and the transaction ids of snapshots. */
export const uint8Text = (reader: ByteReader): string => {
  load(reader.bytes, reader.skip(8))
  return String(unsigned[0])
}

const signs = { positive: 0x0000, negative: 0x4000, nan: 0xc000, infinity: 0xd000, negativeInfinity: 0xf000 } as const

/** `numeric`: groups of four digits, of which the first stands for multiples of 10000^weight. */
export const numericText = (reader: ByteReader): string => {
  const count = reader.uint16()
  const weight = reader.int16()
  const sign = reader.uint16()
  const scale = reader.uint16()
  if (sign === signs.nan) return "NaN"
  if (sign === signs.infinity) return "Infinity"
  if (sign === signs.negativeInfinity) return "-Infinity"
  if (sign !== signs.positive && sign !== signs.negative) reader.fail("a numeric of unknown sign")
  if (scale > 0x3fff) reader.fail("a numeric of more decimals than there can be")
  const start = reader.skip(count * 2)
  const { bytes } = reader
  const groupAt = (index: number): number => {
    if (index < 0 || index >= count) return 0
    const group = (bytes[start + index * 2]! << 8) | bytes[start + index * 2 + 1]!
    return group > 9999 ? reader.fail("a numeric with a digit beyond 9999") : group
  }
  let text = sign === signs.negative ? "-" : ""
  text += weight < 0 ? "0" : String(groupAt(0))
  const whole = Math.min(weight, count - 1)
  for (let index = 1; index <= whole; index++) text += fourDigits(groupAt(index))
  if (weight > whole && weight > 0) text += "0000".repeat(weight - Math.max(whole, 0))
  if (scale === 0) return text
  let decimals = ""
  // Groups that are not there are zeros: before the first, behind the last.
  const first = weight + 1
  if (first < 0) decimals = "0000".repeat(Math.min(-first, Math.ceil(scale / 4)))
  for (let index = Math.max(first, 0); decimals.length < scale && index < count; index++) {
    decimals += fourDigits(groupAt(index))
  }
  return `${text}.${decimals.length > scale ? decimals.slice(0, scale) : decimals.padEnd(scale, "0")}`
}

const fourDigits = (group: number): string =>
  group > 999 ? String(group) : group > 99 ? `0${group}` : group > 9 ? `00${group}` : `000${group}`
