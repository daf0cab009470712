/**
 * pg_recvlogical, PostgreSQL's own client in C: writes what it receives to /dev/null, and decodes nothing. It counts
 * nothing either; it ends at the backlog's end. bash measures it, as Node cannot measure a child.
 */
import { spawnSync } from "node:child_process"
import type { Result } from "../Measure.ts"
import { task } from "../Measure.ts"

const { changes, database, endLsn, host, password, port, publication, slot, user } = task()

const url = `postgres://${user}@${host}:${port}/${database}`
const command =
  `TIMEFORMAT='%R %U %S'; time pg_recvlogical -d '${url}' --slot ${slot} --start -f /dev/null --no-loop ` +
  `-o proto_version=1 -o publication_names='"${publication}"' --endpos=${endLsn}`
const { status, stderr } = spawnSync("bash", ["-c", command], {
  env: { ...process.env, PGPASSWORD: password },
  encoding: "utf8"
})
const times = stderr.trim().split("\n").at(-1)?.split(" ").map(Number)
if (status !== 0 || times === undefined || times.length !== 3 || times.some(Number.isNaN)) {
  process.stderr.write(stderr)
  process.exit(1)
}
const [seconds = 0, user_ = 0, system = 0] = times
const result: Result = { changes, seconds, cpuSeconds: user_ + system, maxRssBytes: 0 }
process.stdout.write(`${JSON.stringify(result)}\n`)
