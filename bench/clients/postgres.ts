/**
 * postgres.js: `subscribe`. It insists on a temporary slot of its own, which would hold no backlog; here its
 * START_REPLICATION names the slot that does. All else is its own.
 */
import postgres from "postgres"
// @ts-expect-error: not part of its typed surface
import Subscribe from "../../node_modules/postgres/src/subscribe.js"
import { startHandler, task } from "../Measure.ts"

const { database, host, password, port, publication, slot, user } = task()

const connect = (options: Record<string, unknown>) => {
  const sql = postgres(options as never) as unknown as { unsafe: (text: string) => unknown }
  const { unsafe } = sql
  sql.unsafe = (text) =>
    unsafe(text.replace(/^START_REPLICATION SLOT \S+ LOGICAL \S+/, `START_REPLICATION SLOT "${slot}" LOGICAL 0/0`))
  return sql
}

const { see, settle } = startHandler()
const subscribe = Subscribe(connect, {
  host,
  port,
  username: user,
  password,
  database,
  publications: publication,
  transform: { column: {}, value: {}, row: {} }
})
await subscribe("*", (row: unknown) => {
  // It waits for nobody, and tells of no commit.
  void see(row)
  settle()
})
