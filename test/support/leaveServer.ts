/** Starts a server, says where, and waits to be killed. Run by PgServer.test.ts. */
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"

const program = Effect.gen(function* () {
  const server = yield* PgServer.make()
  const pid = yield* server.pid
  process.stdout.write(`${JSON.stringify({ pid, directory: server.dataDirectory })}\n`)
  return yield* Effect.never
})

Effect.runFork(Effect.scoped(program))
