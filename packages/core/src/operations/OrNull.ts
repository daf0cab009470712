/** A value that may not be known: `undefined` in the program, `null` in JSON. */
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

export const orNull = <A, I>(schema: Schema.Codec<A, I>): Schema.Codec<A | undefined, I | null> =>
  Schema.NullOr(schema).pipe(
    Schema.decodeTo(
      Schema.UndefinedOr(Schema.toType(schema)),
      SchemaTransformation.transform({
        decode: (value: A | null): A | undefined => value ?? undefined,
        encode: (value: A | undefined): A | null => value ?? null
      })
    )
  )

export const TextOrNull = orNull(Schema.String)
export const NumberOrNull = orNull(Schema.Finite)
export const FlagOrNull = orNull(Schema.Boolean)
