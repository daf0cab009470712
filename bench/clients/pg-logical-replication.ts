/**
 * pg-logical-replication: its service with its own pgoutput plugin, acknowledging on its timer. With the mode
 * `flowControl` it waits for its listener.
 */
import { LogicalReplicationService, PgoutputPlugin } from "pg-logical-replication"
import { startHandler, task } from "../Measure.ts"

const { database, host, password, port, publication, slot, user } = task()

const service = new LogicalReplicationService(
  { host, port, user, password, database },
  {
    acknowledge: { auto: true, timeoutSeconds: 10 },
    flowControl: { enabled: process.env.BENCH_MODE === "flowControl" }
  }
)
service.on("data", (_lsn: string, message: { readonly tag: string; readonly new?: unknown }) => {
  if (message.tag === "insert" || message.tag === "update" || message.tag === "delete") return see(message.new)
  if (message.tag === "commit") settle()
  return undefined
})
const { see, settle } = startHandler()
await service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] }), slot)
