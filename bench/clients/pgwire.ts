/** pgwire: its pgoutput decoder over its replication stream, acknowledging each batch it hands over. */
// @ts-expect-error: it ships no types
import { pgconnection } from "pgwire"
import { startMeasure, task } from "../Measure.ts"

const { changes: wanted, database, host, password, port, publication, slot, user } = task()

const connection = pgconnection({ host, port, user, password, database, replication: "database" })
let count = 0
const finish = startMeasure()
const stream = connection.logicalReplication({ slot, options: { proto_version: 1, publication_names: publication } })
for await (const { lastLsn, messages } of stream.pgoutputDecode()) {
  for (const { tag } of messages) if (tag === "insert" || tag === "update" || tag === "delete") count++
  stream.ack(lastLsn)
  if (count >= wanted) finish(count)
}
