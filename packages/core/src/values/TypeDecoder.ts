/**
 * Which decoder a column gets: by its type's OID where the walsender tells it (pgoutput), by its type's name where it
 * does not (wal2json). Both lead to the same decoder, so both plugins give the same values.
 *
 * The built-in choices lose nothing. What no JavaScript value can hold (numeric, dates with microseconds, BC, infinity)
 * stays PostgreSQL's own text, and any choice can be replaced. This is not the place where text is parsed: see
 * `ScalarText.ts`, `ArrayText.ts` and `TimestampText.ts`.
 */
import { DecodeError } from "../ReplicationError.ts"
import { parseArray } from "./ArrayText.ts"
import { builtinByName, builtinByOid } from "./BuiltinCatalog.ts"
import type { BuiltinType } from "./BuiltinTypes.ts"

export { timestampDate, timestampMicros } from "./TimestampText.ts"

import { custom, json, text as plainText, type ValueForm } from "./ValueForm.ts"

/**
 * A column's text, as PostgreSQL printed it, to a value. Never called for NULL. To refuse a text, throw anything: the
 * stream fails with a `DecodeError` that names relation, column and type, and holds neither value nor cause.
 */
export type TypeDecoder = (text: string) => unknown

/**
 * Replacements for the built-in choices; `{}` keeps them all.
 *
 * | PostgreSQL | JavaScript |
 * |---|---|
 * | `boolean` | `boolean` |
 * | `smallint`, `integer`, `oid`, `xid`, `cid` | `number` |
 * | `bigint` | `bigint` |
 * | `real`, `double precision` | `number`: the double PostgreSQL's text stands for, with NaN, ±Infinity and -0 |
 * | `numeric`, `money` | `string` |
 * | `bytea` | `Uint8Array` |
 * | `json`, `jsonb` | what `JSON.parse` gives, see `json` |
 * | `date`, `time`, `timestamp`, `interval`, with and without zone | `string`, see `timestampMicros`, `timestampDate` |
 * | arrays of the above | nested arrays, `null` for NULL, see `arrays` |
 * | every other type, enums, ranges and composites among them | `string` |
 *
 * A domain decodes as its base type under pgoutput, which names no domains. A decoder for an element type serves its
 * arrays too.
 *
 * @example
 * const types: TypeDecoders = { byName: new Map([["timestamptz", TypeDecoder.timestampDate], ["mood", (text) => Mood.parse(text)]]) }
 */
export interface TypeDecoders {
  /** By OID in `pg_type`. Goes before `byName`. */
  readonly byOid?: ReadonlyMap<number, TypeDecoder> | undefined
  /**
   * By name, without modifiers: a built-in type under its SQL name or its name in `pg_type` (`timestamp with time zone`,
   * `timestamptz`), any other as `schema.name` or `name`. `mood` serves arrays of it (`mood[]`, `_mood`) as well.
   */
  readonly byName?: ReadonlyMap<string, TypeDecoder> | undefined
  /**
   * `parse`, the default, is `JSON.parse`: numbers beyond 2^53 or with more than 17 digits lose precision, and of equal
   * keys in a `json` object the last one stays. `text` keeps PostgreSQL's text, which loses nothing.
   */
  readonly json?: "parse" | "text" | undefined
  /** `nested`, the default, drops explicit lower bounds (`[0:1]={a,b}`); `text` keeps PostgreSQL's text. */
  readonly arrays?: "nested" | "text" | undefined
  /** What a text does that its decoder refuses: `fail`, the default, ends the stream; `text` puts the text in the row. */
  readonly onUndecodable?: "fail" | "text" | undefined
}

/**
 * What becomes of values: the built-in choices with their replacements, or `text`, every value as the server printed it,
 * whatever its type and whatever the format that it came in. So another database takes it back, and nothing is lost.
 *
 * @example
 * Pgoutput.make({ publications: ["orders"], types: "text" })
 */
export type Types = TypeDecoders | "text"

/** What a text does that its decoder refuses; as text none is refused. */
export const onUndecodable = (types: Types): TypeDecoders["onUndecodable"] =>
  types === "text" ? undefined : types.onUndecodable

/** How a value is read: its form, and of a nested array what decodes its elements. */
export interface ValueDecoder extends ValueForm {
  readonly element?: ValueDecoder | undefined
}

/** A type's schema and name, as pgoutput's Type message has them; built-in types have the schema `""` there. */
export interface QualifiedName {
  readonly schema: string
  readonly name: string
}

/** The decoder of arrays whose elements `element` decodes. Give `";"` for arrays of `box`. */
export const arrayOf =
  (element: TypeDecoder, delimiter: "," | ";" = ","): TypeDecoder =>
  (source) =>
    parseArray(source, element, delimiter)

const nested = (element: ValueDecoder, delimiter: "," | ";" = ","): ValueDecoder => ({
  ...custom(arrayOf(element.decode, delimiter)),
  element
})

const builtinForm = ({ form }: BuiltinType, types: TypeDecoders): ValueDecoder =>
  form === json && types.json === "text" ? plainText : form

/** The decoder of a built-in element type, or of the array of one, with every replacement considered. */
const builtin = (type: BuiltinType, isArray: boolean, types: TypeDecoders): ValueDecoder => {
  const { byName, byOid } = types
  if (isArray) {
    const whole =
      byOid?.get(type.arrayOid) ??
      byName?.get(`${type.sqlName}[]`) ??
      byName?.get(`${type.name}[]`) ??
      byName?.get(`_${type.name}`)
    if (whole !== undefined) return custom(whole)
    if (types.arrays === "text") return plainText
    return nested(builtin(type, false, types), type.delimiter)
  }
  const replacement = byOid?.get(type.oid) ?? byName?.get(type.sqlName) ?? byName?.get(type.name)
  return replacement === undefined ? builtinForm(type, types) : custom(replacement)
}

/** What `byName` says of a type that is not built in, or of an array of such a type. */
const named = (name: string, element: string | undefined, types: TypeDecoders): ValueDecoder | undefined => {
  const { byName } = types
  const whole = byName?.get(name)
  if (whole !== undefined) return custom(whole)
  const part = element === undefined ? undefined : byName?.get(element)
  if (part === undefined) return undefined
  return types.arrays === "text" ? plainText : nested(custom(part))
}

/**
 * The decoder for a type by OID, and by the name the walsender gave it (Type messages name all but built-in types; a
 * domain goes by its base type's name). Unknown types stay text.
 *
 * An array of a user's type is parsed only where `byName` knows the element or the array, for nothing on the wire tells
 * `_mood`, the array of `mood`, from a type that somebody named so.
 */
export const decoderForOid = (oid: number, types: Types = {}, name?: QualifiedName): ValueDecoder => {
  if (types === "text") return plainText
  const replacement = types.byOid?.get(oid)
  if (replacement !== undefined) return custom(replacement)
  const known = builtinByOid(oid)
  if (known !== undefined) return builtin(known.type, known.isArray, types)
  if (name === undefined) return plainText
  if (name.schema === "" || name.schema === "pg_catalog") {
    const base = builtinByName(name.name)
    return base === undefined ? plainText : builtin(base.type, base.isArray, types)
  }
  const element = name.name.startsWith("_") ? name.name.slice(1) : undefined
  return (
    named(`${name.schema}.${name.name}`, element === undefined ? undefined : `${name.schema}.${element}`, types) ??
    named(name.name, element, types) ??
    plainText
  )
}

/**
 * A type's name as `format_type` prints it, without its modifiers: `timestamp(3) without time zone` is
 * `timestamp without time zone`, `numeric(10,2)[]` is `numeric[]`, `interval day to second(3)` is `interval`.
 */
export const withoutModifiers = (name: string): string => {
  // A quoted name may hold parentheses of its own; modifiers then stand behind its last quote.
  const unquoted = name.lastIndexOf('"') + 1
  const stripped = name.slice(0, unquoted) + name.slice(unquoted).replace(/ ?\([^()]*\)/, "")
  return /^interval [a-z ]+?(\[\])?$/.test(stripped) ? `interval${stripped.endsWith("[]") ? "[]" : ""}` : stripped
}

/**
 * The decoder for a type by the name `format_type` prints (wal2json's `type`): `integer`, `character varying(20)`,
 * `timestamp(3) with time zone`, `numeric(10,2)[]`, `public.mood`. Unknown types stay text.
 */
export const decoderForName = (name: string, types: Types = {}): ValueDecoder => {
  if (types === "text") return plainText
  const bare = withoutModifiers(name)
  const known = builtinByName(bare)
  if (known !== undefined) return builtin(known.type, known.isArray, types)
  const element = bare.endsWith("[]") ? bare.slice(0, -2) : undefined
  const unqualified = /^[a-z_][a-z0-9_$]*\.([a-z_][a-z0-9_$]*(\[\])?)$/.exec(bare)?.[1]
  return (
    named(name, undefined, types) ??
    named(bare, element, types) ??
    (unqualified === undefined ? undefined : named(unqualified, element && unqualified.slice(0, -2), types)) ??
    plainText
  )
}

/** Where a value stands: all that an error may say of it. */
export interface ValuePlace {
  readonly schema: string
  readonly relation: string
  readonly column: string
  /** The type's name, or its OID where it has none. */
  readonly type: string
}

/** What is wrong with a value that its decoder refused, without the value. */
export const undecodable = (place: ValuePlace): string =>
  `a value of column "${place.column}" of "${place.schema}"."${place.relation}" that is no ${place.type} its decoder takes`

/** `decode`, kept to the rules: it throws `DecodeError` and nothing else, or gives the text where the policy says so. */
export const guarded =
  (decode: TypeDecoder, place: ValuePlace, onUndecodable: TypeDecoders["onUndecodable"]): TypeDecoder =>
  (source) => {
    try {
      return decode(source)
    } catch {
      // What was thrown is dropped: parsers like to quote the value in their messages.
      if (onUndecodable === "text") return source
      throw new DecodeError({ problem: undecodable(place), offset: 0 })
    }
  }
