/**
 * The plugin's own decoder, told the relations as the walsender would tell them: what it then makes of their rows, as COPY
 * sends them, is what it will make of them in the stream.
 *
 * One serves a whole snapshot, also of several connections: it decodes one row at a time and waits for nothing.
 */
import { Run } from "../change/NextLsn.ts"
import { Batch, type CopiedRows, type Decoder, type OutputPlugin } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import * as PgoutputBytes from "../pgoutput/PgoutputBytes.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import type { PublishedTable } from "./PublishedTables.ts"

export class SnapshotDecoder {
  private readonly decoder: Decoder
  private readonly reader: ByteReader
  private readonly copied = new Map<Relation, CopiedRows["readRow"]>()

  constructor(plugin: OutputPlugin, slices: TextSlices) {
    this.decoder = plugin.makeDecoder(slices)
    this.reader = new ByteReader(slices)
  }

  /** Describes a table, and gives the relation of its rows. Throws `DecodeError` for one that the stream would refuse. */
  describe(table: PublishedTable): Relation {
    for (const { type, typeOid } of table.columns) {
      if (type !== null) this.tell(PgoutputBytes.type(typeOid, type.schema, type.name))
    }
    const schema = table.schema === "pg_catalog" ? "" : table.schema
    this.tell(PgoutputBytes.relation({ ...table, schema }))
    const copied = this.decoder.copiedRows?.(table.oid)
    if (copied === undefined) throw new TypeError("a plugin whose rows cannot be copied")
    this.copied.set(copied.relation, copied.readRow)
    return copied.relation
  }

  /** Reads the rows of a relation that was described here. */
  rowsOf(relation: Relation): CopiedRows["readRow"] {
    return this.copied.get(relation)!
  }

  private tell(bytes: Uint8Array): void {
    this.decoder.decode(this.reader.reset(bytes, 0, bytes.length), new Batch(new Run()))
  }
}
