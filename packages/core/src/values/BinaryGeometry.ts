/**
 * Geometric types in PostgreSQL's binary format, to the text its output functions print: doubles in brackets of all sorts.
 *
 * Source: src/backend/utils/adt/geo_ops.c
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { float8Text } from "./BinaryNumber.ts"

export const pointText = (reader: ByteReader): string => {
  const x = float8Text(reader)
  return `(${x},${float8Text(reader)})`
}

const pointsText = (reader: ByteReader, count: number): string => {
  // A count is not to be believed before the bytes for it are there.
  if (count < 0 || count * 16 > reader.remaining) reader.fail("more points than there are bytes for")
  const points: Array<string> = []
  for (let index = 0; index < count; index++) points.push(pointText(reader))
  return points.join(",")
}

export const boxText = (reader: ByteReader): string => pointsText(reader, 2)

export const lsegText = (reader: ByteReader): string => `[${pointsText(reader, 2)}]`

export const polygonText = (reader: ByteReader): string => `(${pointsText(reader, reader.int32())})`

export const pathText = (reader: ByteReader): string => {
  const isClosed = reader.uint8()
  if (isClosed > 1) reader.fail("a path neither open nor closed")
  const points = pointsText(reader, reader.int32())
  return isClosed === 1 ? `(${points})` : `[${points}]`
}

export const lineText = (reader: ByteReader): string => {
  const a = float8Text(reader)
  const b = float8Text(reader)
  return `{${a},${b},${float8Text(reader)}}`
}

export const circleText = (reader: ByteReader): string => {
  const center = pointText(reader)
  return `<${center},${float8Text(reader)}>`
}
