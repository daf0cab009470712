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
import * as PgoutputBytes from "../pgoutput/PgoutputBytes.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import { CopyText } from "./CopyText.ts"
import type { PublishedTable } from "./PublishedTables.ts"

/** A transaction that is nobody's: rows stand in one, and are taken out of it again. */
const begin = PgoutputBytes.begin({ commitLsn: Lsn.zero, commitTime: 0, xid: 0 })

export class SnapshotDecoder {
  private readonly decoder: Decoder
  private readonly reader: ByteReader
  private readonly text = new CopyText()
  private batch = new Batch(new Run())

  constructor(plugin: OutputPlugin, slices: TextSlices) {
    this.decoder = plugin.makeDecoder(slices)
    this.reader = new ByteReader(slices)
    this.tell(begin)
  }

  /** Describes a table, and gives the relation of its rows. Throws `DecodeError` for one that the stream would refuse. */
  describe(table: PublishedTable): Relation {
    for (const { type, typeOid } of table.columns) {
      if (type !== null) this.tell(PgoutputBytes.type(typeOid, type.schema, type.name))
    }
    const schema = table.schema === "pg_catalog" ? "" : table.schema
    this.tell(PgoutputBytes.relation({ ...table, schema }))
    // A relation is shown by the changes that name it, and a Truncate needs no row.
    this.tell(PgoutputBytes.truncate({ oids: [table.oid], cascade: false, restartIdentity: false }))
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
