/**
 * What an opt-in Schema costs a row, in a process of its own, since the Schema JIT is switched on once for a process.
 * Prints nanoseconds a row: decoding from bytes alone, then with each row also decoded by a Schema of its six columns.
 *
 * node [--import effect/schema/SchemaJITCompiler/enable] bench/rowSchema.ts
 */
import type { Change, Row } from "@replicant/core"
import { Schema } from "effect"
import { median } from "./Clients.ts"
import { replicant, secondsAPass } from "./DecodeLoop.ts"
import { readsOf, shapes, write } from "./pgoutputBytes.ts"

const Order = Schema.Struct({
  id: Schema.BigInt,
  account: Schema.Number,
  amount: Schema.String,
  status: Schema.String,
  is_open: Schema.Boolean,
  created_at: Schema.String
})

const workload = write(shapes[0]!)
const reads = readsOf(workload.bytes)
const decodeRow = Schema.decodeUnknownSync(Order)

/** Rows are kept until the next read, so that nothing can be left out as unused. */
const eachRow = (use: (row: Row) => unknown) => {
  let kept: Array<unknown> = []
  return (changes: ReadonlyArray<Change>): number => {
    kept = []
    for (const change of changes) if (change._tag === "Insert") kept.push(use(change.row))
    return kept.length
  }
}

const bare = replicant(
  workload,
  undefined,
  eachRow((row) => row)
)
const withSchema = replicant(workload, undefined, eachRow(decodeRow))

const figures: readonly [bare: Array<number>, withSchema: Array<number>] = [[], []]
for (let round = 0; round <= 7; round++) {
  for (const [index, drain] of [bare, withSchema].entries()) {
    const nanos = (secondsAPass(() => drain(reads), 0.25) / workload.rows) * 1e9
    if (round > 0) figures[index]!.push(nanos)
  }
}
process.stdout.write(JSON.stringify(figures.map(median)))
