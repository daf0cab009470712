/** Damaged values: the text of every built-in type, and the bytes of every type that binary format knows. */
import { describe } from "@effect/vitest"
import { makeBinaryColumn, readBinaryValue } from "../../src/pgoutput/BinaryColumn.ts"
import { decodeRelation, type RelationMessageColumn, tags } from "../../src/pgoutput/LogicalMessage.ts"
import { binaryKind, textKind } from "../../src/pgoutput/Tuple.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { binaryTypeForOid } from "../../src/values/BinaryType.ts"
import { builtinTypes } from "../../src/values/BuiltinTypes.ts"
import { safeInteger } from "../../src/values/ScalarText.ts"
import { timestampDate, timestampMicros } from "../../src/values/TimestampText.ts"
import { decoderForName, decoderForOid, guarded, type TypeDecoder } from "../../src/values/TypeDecoder.ts"
import { fuzz } from "../support/Fuzz.ts"
import { pgoutputBinary, pgoutputText } from "../support/Goldens.ts"
import { mutate } from "../support/Mutation.ts"
import type { Random } from "../support/Random.ts"

const place = { schema: "s", relation: "t", column: "c", type: "x" }

/** A value as it stands on the wire, and the type of its column. */
interface Sample {
  readonly typeOid: number
  readonly bytes: Uint8Array
}

/** The values of the inserts that follow their relation, in the goldens' scenario of all types and in the others. */
const samplesOf = (scenarios: ReadonlyArray<ReadonlyArray<Uint8Array>>, kind: number): ReadonlyArray<Sample> =>
  scenarios.flatMap((messages) => {
    const samples: Array<Sample> = []
    let columns: ReadonlyArray<RelationMessageColumn> = []
    for (const message of messages) {
      if (message[0] === tags.relation) columns = decodeRelation(ByteReader.over(message.subarray(1))).columns
      if (message[0] !== tags.insert) continue
      const reader = ByteReader.over(message.subarray(8))
      for (const { typeOid } of columns) {
        const found = reader.uint8()
        if (found !== textKind && found !== binaryKind) continue
        const bytes = reader.copy(reader.int32())
        if (found === kind) samples.push({ typeOid, bytes })
      }
    }
    return samples
  })

const sample = (typeOid: number, text: string): Sample => ({ typeOid, bytes: Buffer.from(text) })

const texts: ReadonlyArray<Sample> = [
  ...samplesOf(pgoutputText, textKind),
  sample(20, "9223372036854775807"),
  sample(701, "-1.7976931348623157e+308"),
  sample(1007, "[0:1][-3:-2]={{1,NULL},{3,4}}"),
  sample(1009, '{"a\\"b",NULL,"NULL"}'),
  sample(1114, "4714-11-24 00:00:00 BC"),
  sample(1184, "294276-12-31 23:59:59.999999+15:59:59"),
  sample(17, "\\000\\\\x"),
  sample(1082, "-infinity")
]

/** A damaged value; mostly of the type that it was of, sometimes of another. */
const damaged = (samples: ReadonlyArray<Sample>) => {
  const all = samples.map(({ bytes }) => bytes)
  let typeOid = 0
  return {
    input: (random: Random) => {
      const chosen = random.pick(samples)
      typeOid = random.chance(70) ? chosen.typeOid : random.pick(oids)
      return [mutate(random.chance(80) ? [chosen.bytes] : all, random)]
    },
    typeOid: () => typeOid
  }
}

const oids = builtinTypes.flatMap(({ arrayOid, oid }) => [oid, arrayOid])

/** Those that are asked for. */
const chosenDecoders: ReadonlyArray<TypeDecoder> = [safeInteger, timestampDate, timestampMicros]

/** Latin-1 of damaged UTF-8 would never be more than 255: so that other characters come as well. */
const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8")

describe("a damaged value", () => {
  const text = damaged(texts)
  fuzz({
    title: "in text is a value or a DecodeError, under every decoder that might be given it",
    share: 10,
    input: text.input,
    decode: ([bytes], random) => {
      const decode = random.chance(85) ? decoderForOid(text.typeOid()).decode : random.pick(chosenDecoders)
      return guarded(decode, place, "fail")(textOf(bytes!))
    }
  })

  const typeNames = builtinTypes
    .flatMap(({ name, sqlName }) => [`${name}(3,2)[]`, sqlName, `public."${name}"[]`, "interval day to second(3)"])
    .map((name) => Buffer.from(name))

  fuzz({
    title: "under a damaged name of a type is a value or a DecodeError",
    share: 4,
    input: (random) => [mutate(typeNames, random), random.pick(texts).bytes],
    decode: ([name, bytes]) => guarded(decoderForName(textOf(name!)).decode, place, "fail")(textOf(bytes!))
  })

  const binary = damaged(samplesOf(pgoutputBinary, binaryKind))
  const columns = new Map(
    oids.flatMap((oid) => {
      const type = binaryTypeForOid(oid, undefined, new Set())
      if (type === undefined) return []
      const decoders = [decoderForOid(oid), { form: "text", decode: (source: string) => source } as const]
      const choices = decoders.flatMap((decoder) =>
        (["fail", "text"] as const).map((onUndecodable) => ({
          binary: makeBinaryColumn(type, decoder),
          place,
          onUndecodable
        }))
      )
      return [[oid, choices] as const]
    })
  )

  fuzz({
    title: "in binary is a value or a DecodeError, as any of the types it might be",
    share: 8,
    input: binary.input,
    decode: ([bytes], random) => {
      const choices = columns.get(binary.typeOid())
      if (choices === undefined) return undefined
      const whole = new Uint8Array(bytes!.length + 16).fill(0x01)
      whole.set(bytes!, 8)
      const reader = new ByteReader().reset(whole, 8, 8 + bytes!.length)
      return readBinaryValue(reader, random.pick(choices), 8, 8 + bytes!.length)
    },
    // A numeric of eight bytes may be 10^131071, and have 16383 decimals.
    mostWeight: (length) => 64 * length + 4 * 150_000
  })
})
