/**
 * Decoding alone, in process, on one core: bytes as a walsender sends them, to changes. Run it as
 *
 *     node bench/decode.ts [seconds]
 *
 * Beside our decoder it measures pg-logical-replication's in the same run, where that can be found: installed here, or
 * under the directory that `REPLICANT_PEERS` names. Both are given whole frames by the same loop, so only the decoding
 * differs. Clients take turns; each figure is the median of its rounds. Look at ratios: absolute figures follow the machine.
 */
import { createRequire } from "node:module"
import { join } from "node:path"
import { Run } from "../packages/core/src/change/NextLsn.ts"
import { Batch } from "../packages/core/src/change/OutputPlugin.ts"
import * as Pgoutput from "../packages/core/src/pgoutput/Pgoutput.ts"
import { ByteReader, portableText } from "../packages/core/src/protocol/ByteReader.ts"
import { Frames } from "../packages/core/src/protocol/Frames.ts"
import { nodeText } from "../packages/node/src/NodeText.ts"
import { type Workload, workloads } from "./pgoutputBytes.ts"

const readSize = 65_536
const xLogDataHeader = 25
const seconds = Number(process.argv[2] ?? 1)
const rounds = 5

type Drain = (reads: ReadonlyArray<Uint8Array>) => number

const replicant =
  (slices = nodeText): Drain =>
  (reads) => {
    const decoder = Pgoutput.make({ publications: ["bench"] }).makeDecoder(slices)
    const frames = new Frames()
    const reader = new ByteReader(slices)
    const run = new Run()
    let changes = 0
    for (const read of reads) {
      const batch = new Batch(run)
      frames.push(read)
      while (frames.next()) {
        decoder.decode(reader.reset(frames.bytes, frames.start + xLogDataHeader, frames.end), batch)
      }
      changes += batch.changes.length
    }
    return changes
  }

interface PeerPlugin {
  readonly parse: (payload: Buffer) => unknown
}

const peerPlugin = (): (new (options: object) => PeerPlugin) | undefined => {
  for (const from of [process.env.REPLICANT_PEERS, process.cwd()]) {
    if (from === undefined) continue
    try {
      return createRequire(join(from, "package.json"))("pg-logical-replication").PgoutputPlugin
    } catch {
      // Not there: the next place, or without it.
    }
  }
  return undefined
}

const pgLogicalReplication =
  (Plugin: new (options: object) => PeerPlugin): Drain =>
  (reads) => {
    const plugin = new Plugin({ protoVersion: 1, publicationNames: ["bench"] })
    const frames = new Frames()
    let changes: Array<unknown> = []
    let count = 0
    for (const read of reads) {
      frames.push(read)
      while (frames.next()) {
        const { buffer, byteOffset } = frames.bytes
        const start = frames.start + xLogDataHeader
        changes.push(plugin.parse(Buffer.from(buffer, byteOffset + start, frames.end - start)))
      }
      count += changes.length
      changes = []
    }
    return count
  }

/** Row changes a second, over as many passes as fit. */
const measure = (drain: Drain, workload: Workload, reads: ReadonlyArray<Uint8Array>): number => {
  const begun = process.hrtime.bigint()
  let passes = 0
  let elapsed = 0
  do {
    drain(reads)
    passes += 1
    elapsed = Number(process.hrtime.bigint() - begun) / 1e9
  } while (elapsed < seconds / rounds)
  return (passes * workload.rows) / elapsed
}

const median = (figures: ReadonlyArray<number>): number => figures.toSorted((a, b) => a - b)[figures.length >> 1]!

const Plugin = peerPlugin()
const clients: ReadonlyArray<readonly [name: string, drain: Drain]> = [
  ["replicant", replicant()],
  ["replicant, portable text", replicant(portableText)],
  ...(Plugin === undefined ? [] : [["pg-logical-replication", pgLogicalReplication(Plugin)] as const])
]

for (const workload of workloads) {
  const reads: Array<Uint8Array> = []
  for (let at = 0; at < workload.bytes.length; at += readSize) reads.push(workload.bytes.subarray(at, at + readSize))
  const figures = clients.map((): Array<number> => [])
  for (const [, drain] of clients) measure(drain, workload, reads)
  for (let round = 0; round < rounds; round++) {
    for (const [index, [, drain]] of clients.entries()) figures[index]!.push(measure(drain, workload, reads))
  }
  const medians = figures.map(median)
  console.log(`${workload.name} (${Math.round(workload.bytes.length / workload.rows)} bytes a row)`)
  for (const [index, [name]] of clients.entries()) {
    const figure = medians[index]!
    console.log(
      `  ${name.padEnd(28)}${`${Math.round(figure / 1000)} k/s`.padStart(12)}${`x ${(figure / medians.at(-1)!).toFixed(2)}`.padStart(10)}`
    )
  }
}
