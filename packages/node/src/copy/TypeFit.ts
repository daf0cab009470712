/**
 * Whether a column of the target takes every value of one of the source, by their types alone. Values cross as text, so what
 * is asked is whether each text of the one type is read by the other, and means the same there.
 */

/** A type as the catalog of either side has it. */
export interface ColumnType {
  /** As `format_type` prints it: `numeric(10,2)`. */
  readonly type: string
  /** What it is a domain over, or itself; and the extension it came with. */
  readonly base: { readonly schema: string; readonly name: string; readonly extension?: string | null | undefined }
  /** Of an enum. */
  readonly labels: ReadonlyArray<string> | null
}

/** Built-in types whose every text is one of another, and means the same there. `json` may hold what `jsonb` refuses, loudly. */
const widerTypes: { readonly [type: string]: ReadonlyArray<string> } = {
  int2: ["int4", "int8", "numeric", "float4", "float8"],
  int4: ["int8", "numeric", "float8"],
  int8: ["numeric"],
  oid: ["int8", "numeric"],
  float4: ["float8"],
  varchar: ["text"],
  bpchar: ["text", "varchar"],
  text: ["varchar"],
  name: ["text", "varchar"],
  bit: ["varbit"],
  cidr: ["inet"],
  json: ["jsonb"],
  jsonb: ["json"]
}

/** An enum's labels are words. */
const texts = ["text", "varchar"]

/** `(10,2)` of `numeric(10,2)`, `(3)` of `timestamp(3) with time zone`: as numbers; none where there is no limit. */
const limits = (type: string): ReadonlyArray<number> => {
  const found = /\((-?\d+(?:,-?\d+)*)\)/.exec(type)?.[1]
  return found === undefined ? [] : found.split(",").map(Number)
}

/** How many digits whole numbers have at most. */
const wholeDigits: { readonly [type: string]: number } = { int2: 5, int4: 10, int8: 19, oid: 10 }

const elementOf = (name: string): string => (name.startsWith("_") ? name.slice(1) : name)

type Limits = ReadonlyArray<number>

/** Digits before the point, and after it. */
const digitsOf = (
  name: string,
  [precision, scale = 0]: Limits
): readonly [before: number, after: number] | undefined => {
  const whole = wholeDigits[name]
  if (whole !== undefined) return [whole, 0]
  return precision === undefined ? undefined : [precision - scale, scale]
}

/** Whether what the source's limit lets through passes the target's. */
const isWithin = (source: ColumnType, target: ColumnType): boolean => {
  const [from, to] = [limits(source.type), limits(target.type)]
  const [max] = to
  const name = elementOf(target.base.name)
  // `interval day to second` cuts off what does not fit, whether or not it has a number.
  if (name === "interval" && !/^interval(\(\d\))?(\[\])*$/.test(target.type)) return false
  if (max === undefined) return true
  switch (name) {
    case "varchar":
    case "bpchar":
    case "varbit":
      return from[0] !== undefined && from[0] <= max
    case "numeric": {
      const [before, after] = digitsOf(elementOf(source.base.name), from) ?? [Number.POSITIVE_INFINITY, 0]
      return before <= max - (to[1] ?? 0) && after <= (to[1] ?? 0)
    }
    case "timestamp":
    case "timestamptz":
    case "time":
    case "timetz":
    case "interval":
      // Microseconds, unless fewer are kept.
      return (from[0] ?? 6) <= max
    default:
      return false
  }
}

const isBuiltin = ({ base }: ColumnType): boolean => base.schema === "pg_catalog"

/** One type on both sides: of the same schema, or of an extension that lies in another. */
const isSameBase = ({ base: source }: ColumnType, { base: target }: ColumnType): boolean =>
  source.name === target.name &&
  (source.schema === target.schema || (source.extension != null && source.extension === target.extension))

/** The type's own name: an extension's may have another schema, and the same limit. */
const withoutSchema = (type: string): string => type.replace(/^(?:"(?:[^"]|"")*"|[^".(]*)\.(?=.)/, "")

const isWider = (source: ColumnType, target: ColumnType): boolean => {
  if (!isBuiltin(target)) return false
  const { name } = source.base
  if (source.labels !== null) return texts.includes(target.base.name)
  // Of arrays the elements.
  if (!isBuiltin(source) || name.startsWith("_") !== target.base.name.startsWith("_")) return false
  return widerTypes[elementOf(name)]?.includes(elementOf(target.base.name)) === true
}

/** Why values of the one do not fit the other. */
export const misfit = (source: ColumnType, target: ColumnType): string | undefined => {
  const isOne = isSameBase(source, target)
  const hasSameLimits = isOne && withoutSchema(source.type) === withoutSchema(target.type)
  const wider = isWider(source, target)
  const fits = source.type === target.type || hasSameLimits || ((isOne || wider) && isWithin(source, target))
  if (!fits) return `is ${target.type}, and ${source.type} at the source`
  if (wider) return undefined
  const missing = source.labels?.filter((label) => target.labels?.includes(label) !== true) ?? []
  return missing.length === 0 ? undefined : `lacks labels of the enum at the source: ${missing.join(", ")}`
}
