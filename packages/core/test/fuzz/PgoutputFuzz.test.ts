/** Damaged streams of pgoutput, and damaged rows in both formats through both readers of rows. */
import { assert, describe } from "@effect/vitest"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type InProgressMode, type Replay } from "../../src/change/OutputPlugin.ts"
import { makeBinaryColumn } from "../../src/pgoutput/BinaryColumn.ts"
import { compileRowReader } from "../../src/pgoutput/CompiledRowReader.ts"
import { decodeRelation, tags } from "../../src/pgoutput/LogicalMessage.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { interpretedRowReader } from "../../src/pgoutput/RowReader.ts"
import { type ColumnReader, type RowReader, TupleScratch } from "../../src/pgoutput/Tuple.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { binaryTypeForOid } from "../../src/values/BinaryType.ts"
import { decoderForOid } from "../../src/values/TypeDecoder.ts"
import { fuzz } from "../support/Fuzz.ts"
import { pgoutputBinary, pgoutputInProgress, pgoutputText } from "../support/Goldens.ts"
import { mutate, mutateSequence } from "../support/Mutation.ts"
import { decodeOne } from "../support/PgoutputBytes.ts"
import type { Random } from "../support/Random.ts"

/** A numeric of eight bytes may be 10^131071, and have 16383 decimals: the one type whose text is so much longer. */
const longestNumeric = 150_000

const enums = ["mood"]

const decodeStream =
  (options: Partial<Pgoutput.Options>, mode?: InProgressMode) => (messages: ReadonlyArray<Uint8Array>) => {
    const decoder = Pgoutput.make({ ...options, publications: ["p"] }).makeDecoder(portableText, mode)
    const batch = new Batch(new Run())
    try {
      for (const message of messages) decodeOne(decoder, message, batch)
    } catch (error) {
      // What came before the damage is delivered, and held by whoever has it.
      if (!(error instanceof DecodeError)) throw error
    }
    return [batch.changes, ...batch.gathered.map(({ replay }) => replayed(replay))]
  }

/** A gathered transaction's changes, up to the damage. */
const replayed = ({ begin, bytes, decode, end }: Replay) => {
  const batch = new Batch(new Run())
  try {
    begin(batch)
    for (const chunk of bytes.takeChunks()) decode(chunk, batch)
    end(batch)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
  }
  return batch.changes
}

describe("a damaged stream of pgoutput", () => {
  fuzz({
    title: "[F12] in text gives changes or a DecodeError",
    share: 10,
    input: (random) => mutateSequence(pgoutputText, random),
    decode: decodeStream({})
  })

  const inProgress = [...pgoutputInProgress, ...pgoutputText]
  for (const mode of ["gather", "deliver"] as const) {
    fuzz({
      title: `of transactions in progress gives changes or a DecodeError, by ${mode}`,
      share: 4,
      input: (random) => mutateSequence(inProgress, random),
      decode: decodeStream({ streaming: "on", twoPhase: true }, mode)
    })
  }

  fuzz({
    title: "in binary gives changes or a DecodeError",
    share: 10,
    input: (random) => mutateSequence(pgoutputBinary, random),
    decode: decodeStream({ format: "binary", enums }),
    mostWeight: (length) => 64 * length + 4 * longestNumeric
  })
})

/** A relation's columns, and tuples of it that the server sent. */
interface Sample {
  readonly columns: ReadonlyArray<ColumnReader>
  readonly tuples: ReadonlyArray<Uint8Array>
}

/** Every insert of the goldens, behind the relation that came before it. */
const samplesOf = (
  scenarios: ReadonlyArray<ReadonlyArray<Uint8Array>>,
  format: "text" | "binary"
): ReadonlyArray<Sample> =>
  scenarios.flatMap((messages) => {
    const described = messages.find((message) => message[0] === tags.relation)
    if (described === undefined) return []
    const { columns, name, oid, schema } = decodeRelation(ByteReader.over(described.subarray(1)))
    const tuples = messages
      .filter((message) => message[0] === tags.insert && Buffer.from(message).readUInt32BE(1) === oid)
      .map((message) => message.subarray(6))
    const readers = columns.map((column, index): ColumnReader => {
      const decoder = decoderForOid(column.typeOid)
      const type = format === "binary" ? binaryTypeForOid(column.typeOid, undefined, new Set(enums)) : undefined
      return {
        name: column.name,
        isRead: index % 7 !== 6,
        decoder,
        binary: type === undefined ? undefined : makeBinaryColumn(type, decoder),
        place: { schema, relation: name, column: column.name, type: String(column.typeOid) },
        onUndecodable: index % 5 === 4 ? "text" : "fail"
      }
    })
    return tuples.length === 0 ? [] : [{ columns: readers, tuples }]
  })

interface Outcome {
  readonly row?: unknown
  readonly unchanged?: ReadonlyArray<string> | undefined
  readonly end?: number | undefined
  readonly problem?: string | undefined
}

/** Reads a tuple between other bytes, which must not be looked at. */
const readTuple = (read: RowReader, tuple: Uint8Array, filler: number): Outcome => {
  const whole = new Uint8Array(tuple.length + 64).fill(filler)
  whole.set(tuple, 7)
  const reader = new ByteReader().reset(whole, 7, 7 + tuple.length)
  const scratch = new TupleScratch()
  try {
    const row = read(reader, scratch, undefined)
    return { row, unchanged: scratch.unchanged, end: reader.offset }
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    return { problem: `${error.problem} at ${error.offset}` }
  }
}

/** What may stand around a tuple: kinds of columns above all. */
const around = Buffer.from("tbnu\0\xff", "latin1")

const rows = (samples: ReadonlyArray<Sample>) => {
  const readers = samples.map(({ columns, tuples }) => {
    const loop = interpretedRowReader(columns)
    // Where the runtime generates no code there is one reader, compared with itself.
    return { loop, compiled: compileRowReader(columns) ?? loop, tuples }
  })
  let chosen = readers[0]!
  return {
    input: (random: Random) => {
      chosen = random.pick(readers)
      return [mutate(chosen.tuples, random)]
    },
    decode: ([tuple]: ReadonlyArray<Uint8Array>, random: Random) => {
      const outcome = readTuple(chosen.loop, tuple!, around[random.below(around.length)]!)
      assert.deepStrictEqual(readTuple(chosen.compiled, tuple!, around[random.below(around.length)]!), outcome)
      return outcome
    }
  }
}

describe("a damaged row of pgoutput, by the loop and by the compiled reader alike,", () => {
  fuzz({
    title: "in text is the same row or the same DecodeError, whatever stands around it",
    share: 9,
    ...rows(samplesOf(pgoutputText, "text"))
  })

  fuzz({
    title: "in binary is the same row or the same DecodeError, whatever stands around it",
    share: 10,
    ...rows(samplesOf(pgoutputBinary, "binary")),
    mostWeight: (length) => 64 * length + 4 * longestNumeric
  })
})
