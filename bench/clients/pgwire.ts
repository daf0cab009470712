/** pgwire: its pgoutput decoder over its replication stream, acknowledging each batch it hands over. */
// @ts-expect-error: it ships no types
import { pgconnection } from "pgwire"
import { startHandler, task } from "../Measure.ts"

const { database, host, password, port, publication, slot, user } = task()

const connection = pgconnection({ host, port, user, password, database, replication: "database" })
const { see, settle } = startHandler()
const stream = connection.logicalReplication({ slot, options: { proto_version: 1, publication_names: publication } })
for await (const { lastLsn, messages } of stream.pgoutputDecode()) {
  for (const { after, tag } of messages) {
    if (tag !== "insert" && tag !== "update" && tag !== "delete") continue
    const done = see(after)
    if (done !== undefined) await done
  }
  stream.ack(lastLsn)
  settle()
}
