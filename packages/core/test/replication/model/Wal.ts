/**
 * A piece of WAL as the model has it, written in letters, and what a walsender says of it. Positions are small numbers;
 * only the record that decides whether a unit is skipped has a place of its own.
 *
 * | letter | record |
 * |---|---|
 * | `T` | the commit of a published transaction |
 * | `-` | work that the publication leaves out |
 * | `M` | a message outside any transaction |
 * | `E` | the same, delivered under the LSN of the unit before (wal2json, format 1) |
 * | `X` | the commit of a published transaction that the client cannot decode |
 * | `[` | a block of the streamed transaction while it is in progress |
 * | `S` | the commit of that transaction |
 *
 * Records of neighbouring letters are adjacent: one ends where the next begins.
 */

export type Letter = "T" | "-" | "M" | "E" | "X" | "[" | "S"

/** A record. A unit of `T`, `M`, `E`, `X` and `S`: to be handled, and skipped iff its record starts before a position. */
export interface Record {
  readonly letter: Letter
  readonly name: string
  readonly index: number
  readonly start: number
  readonly end: number
  /** What is acknowledged for it. */
  readonly ack: number
}

/** What a walsender says at one point. */
export interface Piece {
  readonly record: Record
  readonly says: "Begin" | "End" | "Nothing" | "BlockStart" | "BlockEnd"
}

export interface Wal {
  readonly text: string
  readonly records: ReadonlyArray<Record>
  readonly pieces: ReadonlyArray<Piece>
  readonly end: number
}

const length = 10

export const isUnit = (record: Record): boolean => record.letter !== "-" && record.letter !== "["

const piecesOf = (record: Record): ReadonlyArray<Piece> => {
  switch (record.letter) {
    case "-":
      return [{ record, says: "Nothing" }]
    case "[":
      return [
        { record, says: "BlockStart" },
        { record, says: "BlockEnd" }
      ]
    case "M":
    case "E":
      return [{ record, says: "End" }]
    default:
      return [
        { record, says: "Begin" },
        { record, says: "End" }
      ]
  }
}

/** `fromText("TT-T")`: two adjacent commits, unpublished work, another commit. */
export const fromText = (text: string): Wal => {
  const records: Array<Record> = []
  let ack = 0
  for (const [index, letter] of [...text].entries()) {
    const start = (index + 1) * length
    const end = start + length
    if (letter !== "E" && letter !== "-" && letter !== "[") ack = end
    records.push({ letter: letter as Letter, name: `${letter}${index}`, index, start, end, ack })
  }
  return { text, records, pieces: records.flatMap(piecesOf), end: (records.length + 1) * length }
}

/** Where the WAL begins; a slot is made here. */
export const origin = length
