/**
 * The plugin's own decoder, shown the tables as the catalog has them: what it makes of their rows, as COPY sends them, is
 * what it will make of them in the stream.
 *
 * One serves a whole snapshot, also of several connections: it decodes one row at a time and waits for nothing.
 */
import type { CopiedRows, CopiedTable, Decoder, OutputPlugin } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import type { TextSlices } from "../protocol/ByteReader.ts"

export class SnapshotDecoder {
  private readonly decoder: Decoder
  private readonly copied = new Map<Relation, CopiedRows["readRow"]>()

  constructor(plugin: OutputPlugin, slices: TextSlices) {
    this.decoder = plugin.makeDecoder(slices)
  }

  /** Describes a table, and gives the relation of its rows. Throws `DecodeError` for one that the stream would refuse. */
  describe(table: CopiedTable): Relation {
    const copied = this.decoder.copiedRows?.(table)
    if (copied === undefined) throw new TypeError("a plugin whose rows cannot be copied")
    this.copied.set(copied.relation, copied.readRow)
    return copied.relation
  }

  /** Reads the rows of a relation that was described here. */
  rowsOf(relation: Relation): CopiedRows["readRow"] {
    return this.copied.get(relation)!
  }
}
