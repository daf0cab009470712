/**
 * A process that writes, for `latency.ts`: single rows at a rate, each with its own clock reading, or thousands at a time
 * into a table that is not published, until it is killed.
 */
import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"

interface WriterTask {
  readonly url: string
  /** Commits a second, and how many; `undefined` for the noise. */
  readonly rate: number | undefined
  readonly rows: number
}

const { rate, rows, url } = JSON.parse(process.env.BENCH_WRITER ?? "{}") as WriterTask

const client = new pg.Client(url)
await client.connect()

if (rate === undefined) {
  while (true) {
    await client.query("INSERT INTO other SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i")
  }
}

const text = "INSERT INTO t VALUES ($1, $2)"
const begun = performance.now()
for (let row = 0; row < rows; row++) {
  const due = begun + (row * 1000) / rate - performance.now()
  if (due > 0) await sleep(due)
  await client.query({ name: "insert", text, values: [row, String(process.hrtime.bigint())] })
}
process.stdout.write(String(Math.round(rows / ((performance.now() - begun) / 1000))))
await client.end()
