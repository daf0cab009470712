/**
 * The plugin's own decoder, made to decode rows that were there before its stream begins: it is told the relations as the
 * walsender would tell them, and then one Insert a row. So a row of the snapshot cannot differ from a row of the stream.
 *
 * One serves a whole snapshot, also of several connections: it decodes one row at a time and waits for nothing.
 */
import type { Insert, Row } from "../change/Change.ts"
import { Run } from "../change/NextLsn.ts"
import { Batch, type Decoder, type OutputPlugin } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import { CopyText } from "./CopyText.ts"
import type { PublishedTable } from "./PublishedTables.ts"

type Part = string | readonly [width: 1 | 2 | 4 | 8, value: bigint | number] | { readonly cstring: string }

const encoder = new TextEncoder()

const bytesOf = (part: Part): Uint8Array => {
  if (typeof part === "string") return encoder.encode(part)
  if ("cstring" in part) return encoder.encode(`${part.cstring}\0`)
  const [width, value] = part
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)))
  return bytes.subarray(8 - width)
}

const message = (parts: ReadonlyArray<Part>): Uint8Array => {
  const pieces = parts.map(bytesOf)
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

const relationMessage = ({ columns, name, oid, replicaIdentity, schema }: PublishedTable): Uint8Array =>
  message([
    ...(["R", [4, oid], { cstring: schema === "pg_catalog" ? "" : schema }, { cstring: name }] as const),
    replicaIdentity,
    [2, columns.length],
    ...columns.flatMap(
      (column): ReadonlyArray<Part> => [
        [1, column.isKey ? 1 : 0],
        { cstring: column.name },
        [4, column.typeOid],
        [4, column.typeModifier]
      ]
    )
  ])

/** A transaction that is nobody's: rows stand in one, and are taken out of it again. */
const beginMessage = message(["B", [8, Lsn.zero], [8, 0], [4, 0]])

export class SnapshotDecoder {
  private readonly decoder: Decoder
  private readonly reader: ByteReader
  private readonly text = new CopyText()
  private batch = new Batch(new Run())

  constructor(plugin: OutputPlugin, slices: TextSlices) {
    this.decoder = plugin.makeDecoder(slices)
    this.reader = new ByteReader(slices)
    this.tell(beginMessage)
  }

  /** Describes a table, and gives the relation of its rows. Throws `DecodeError` for one that the stream would refuse. */
  describe(table: PublishedTable): Relation {
    for (const { type, typeOid } of table.columns) {
      if (type !== null) this.tell(message(["Y", [4, typeOid], { cstring: type.schema }, { cstring: type.name }]))
    }
    this.tell(relationMessage(table))
    // A relation is shown by the changes that name it, and a Truncate needs no row.
    this.tell(message(["T", [4, 1], [1, 0], [4, table.oid]]))
    const shown = this.batch.changes.at(-1)
    this.batch = new Batch(new Run())
    if (shown?._tag !== "Truncate") throw new TypeError(`a plugin that describes no relations`)
    return shown.relations[0]!
  }

  /** The row in `bytes[start, end)`, in COPY's text format. Throws `DecodeError` and nothing else. */
  decodeRow(relation: Relation, bytes: Uint8Array, start: number, end: number): Row {
    const length = this.text.encodeInsert(relation.oid, relation.columns.length, bytes, start, end)
    const { batch } = this
    this.decoder.decode(this.reader.reset(this.text.bytes, 0, length), batch)
    return (batch.changes.pop() as Insert).row
  }

  private tell(bytes: Uint8Array): void {
    this.decoder.decode(this.reader.reset(bytes, 0, bytes.length), this.batch)
  }
}
