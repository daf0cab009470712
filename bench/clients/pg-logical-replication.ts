/** pg-logical-replication: its service with its own pgoutput plugin, acknowledging on its timer. */
import { LogicalReplicationService, PgoutputPlugin } from "pg-logical-replication"
import { startMeasure, task } from "../Measure.ts"

const { changes: wanted, database, host, password, port, publication, slot, user } = task()

const service = new LogicalReplicationService(
  { host, port, user, password, database },
  { acknowledge: { auto: true, timeoutSeconds: 10 } }
)
let count = 0
service.on("data", (_lsn: string, message: { readonly tag: string }) => {
  if (message.tag === "insert" || message.tag === "update" || message.tag === "delete") count++
  else if (message.tag === "commit" && count >= wanted) finish(count)
})
const finish = startMeasure()
await service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] }), slot)
