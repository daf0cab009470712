/**
 * The log sequence number: a byte position in the write-ahead log. Unsigned, 64 bits, a branded bigint.
 *
 * It is not an opaque cursor: two LSNs can be compared, and their difference is a count of WAL bytes.
 */
import type * as Brand from "effect/Brand"
import * as Order from "effect/Order"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/**
 * A position in the WAL, in bytes, 0 to 2^64-1.
 *
 * Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
 */
export type Lsn = bigint & Brand.Brand<"Lsn">

const maximum = 0xffff_ffff_ffff_ffffn

/** Schema of an {@link Lsn} held as a bigint: within 0 to 2^64-1, or a `SchemaError`. */
export const Lsn: Schema.Codec<Lsn, bigint> = Schema.BigInt.check(
  Schema.isBetweenBigInt({ minimum: 0n, maximum })
).pipe(Schema.brand("Lsn"))

/** `0/0`, PostgreSQL's invalid LSN. As a start position it means "wherever the slot stands". */
export const zero = 0n as Lsn

/** `FFFFFFFF/FFFFFFFF`, the largest LSN there can be. */
export const maxValue = maximum as Lsn

/**
 * An LSN from a bigint, or `undefined` when it does not fit 64 unsigned bits.
 *
 * @example
 * Lsn.make(-1n) // => undefined
 */
export const make = (value: bigint): Lsn | undefined => (value < 0n || value > maximum ? undefined : (value as Lsn))

const halves = new Uint32Array(2)
const whole = new BigUint64Array(halves.buffer)
halves[0] = 1
const isLittleEndian = whole[0] === 1n
const highIndex = isLittleEndian ? 1 : 0
const lowIndex = isLittleEndian ? 0 : 1

/**
 * An LSN from its two 32-bit halves as they stand on the wire. Halves are taken as unsigned. Written through one piece of
 * memory, since shifting and joining bigints made transactions of one row a fifth slower.
 */
export const fromHalves = (high: number, low: number): Lsn => {
  halves[highIndex] = high
  halves[lowIndex] = low
  return whole[0] as Lsn
}

const pattern = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/

/**
 * An LSN from PostgreSQL's text, `16/B374D848`, in either case; `undefined` for anything else.
 *
 * Source: `pg_lsn_in_internal` in src/backend/utils/adt/pg_lsn.c: one to eight hex digits on each side.
 *
 * @example
 * Lsn.fromString("16/B374D848") // => 97500059720n
 */
export const fromString = (text: string): Lsn | undefined => {
  const match = pattern.exec(text)
  return match === null ? undefined : fromHalves(Number.parseInt(match[1]!, 16), Number.parseInt(match[2]!, 16))
}

/**
 * PostgreSQL's text for an LSN: two upper-case hex numbers without leading zeros.
 *
 * @example
 * Lsn.format(97500059720n as Lsn.Lsn) // => "16/B374D848"
 */
export const format = (lsn: Lsn): string =>
  `${(lsn >> 32n).toString(16)}/${(lsn & 0xffff_ffffn).toString(16)}`.toUpperCase()

/**
 * Sixteen hex digits, zero-padded: sorts as text in the order of the LSNs. Meant for keys in a sink.
 *
 * @example
 * Lsn.formatSortable(97500059720n as Lsn.Lsn) // => "00000016B374D848"
 */
export const formatSortable = (lsn: Lsn): string => lsn.toString(16).toUpperCase().padStart(16, "0")

/** Ordering by position in the WAL. */
export const order: Order.Order<Lsn> = Order.BigInt

/** -1, 0 or 1 as `self` lies before, at or after `that`. */
export const compare = (self: Lsn, that: Lsn): -1 | 0 | 1 => (self < that ? -1 : self > that ? 1 : 0)

/** The later of two LSNs. */
export const max = (self: Lsn, that: Lsn): Lsn => (self < that ? that : self)

/** The earlier of two LSNs. */
export const min = (self: Lsn, that: Lsn): Lsn => (self < that ? self : that)

/**
 * The LSN `bytes` further on, or `undefined` when that leaves the 64 bits. Never use it to acknowledge: an end LSN is
 * exclusive already, and one byte more loses a transaction (docs/delivery.md).
 */
export const add = (self: Lsn, bytes: bigint): Lsn | undefined => make(self + bytes)

/** WAL bytes from `that` to `self`; negative when `self` lies before. As `pg_wal_lsn_diff(self, that)`. */
export const sub = (self: Lsn, that: Lsn): bigint => self - that

/**
 * Schema between PostgreSQL's text and an {@link Lsn}.
 *
 * @example
 * Schema.decodeSync(Lsn.LsnFromString)("0/1") // => 1n
 */
export const LsnFromString: Schema.Codec<Lsn, string> = Schema.String.check(Schema.isPattern(pattern)).pipe(
  Schema.decodeTo(
    Lsn,
    SchemaTransformation.transform({
      decode: (text) => fromString(text) as bigint,
      encode: (lsn) => format(lsn as Lsn)
    })
  )
)
