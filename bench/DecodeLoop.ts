/** The bare decode loop, ours and pg-logical-replication's, over whole frames that the same framing gives to both. */
import type { Change } from "@replicant/core"
import { PgoutputPlugin } from "pg-logical-replication"
import { Run } from "../packages/core/src/change/NextLsn.ts"
import { Batch } from "../packages/core/src/change/OutputPlugin.ts"
import * as Pgoutput from "../packages/core/src/pgoutput/Pgoutput.ts"
import { ByteReader } from "../packages/core/src/protocol/ByteReader.ts"
import { Frames } from "../packages/core/src/protocol/Frames.ts"
import { nodeText } from "../packages/node/src/pg/NodeText.ts"
import { readsOf, type Workload } from "./pgoutputBytes.ts"

const xLogDataHeader = 25

/** Decodes some reads, and gives how many changes or messages they had. */
export type Drain = (reads: ReadonlyArray<Uint8Array>) => number

/** A decoder that has been told of the relations. `see` is given the changes of each read. */
export const replicant = (
  { relations }: Workload,
  slices = nodeText,
  see: (changes: ReadonlyArray<Change>) => void = () => undefined
): Drain => {
  const decoder = Pgoutput.make({ publications: ["bench"] }).makeDecoder(slices)
  const frames = new Frames()
  const reader = new ByteReader(slices)
  const run = new Run()
  const drain: Drain = (reads) => {
    let changes = 0
    for (const read of reads) {
      const batch = new Batch(run)
      frames.push(read)
      while (frames.next()) {
        decoder.decode(reader.reset(frames.bytes, frames.start + xLogDataHeader, frames.end), batch)
      }
      changes += batch.changes.length
      see(batch.changes)
    }
    return changes
  }
  drain(readsOf(relations))
  return drain
}

/** The same of pg-logical-replication's plugin. */
export const pgLogicalReplication = ({ relations }: Workload): Drain => {
  const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ["bench"] })
  const frames = new Frames()
  const drain: Drain = (reads) => {
    let changes: Array<unknown> = []
    let count = 0
    for (const read of reads) {
      frames.push(read)
      while (frames.next()) {
        const { buffer, byteOffset } = frames.bytes
        const start = frames.start + xLogDataHeader
        changes.push(plugin.parse(Buffer.from(buffer as ArrayBuffer, byteOffset + start, frames.end - start)))
      }
      count += changes.length
      changes = []
    }
    return count
  }
  drain(readsOf(relations))
  return drain
}

/** Seconds one pass takes: the mean over as many as fit in `seconds`. */
export const secondsAPass = (pass: () => unknown, seconds: number): number => {
  const begun = performance.now()
  let passes = 0
  let elapsed = 0
  do {
    pass()
    passes += 1
    elapsed = (performance.now() - begun) / 1000
  } while (elapsed < seconds)
  return elapsed / passes
}
