/**
 * Tests against a NATS of their own, in real time: of the machine's `nats-server`, and of a current one where there is one in the
 * checkout's cache. Skipped by name where there is none; of the machine's, in CI never.
 */
import { fileURLToPath } from "node:url"
import { it } from "@effect/vitest"
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream"
import { connect, type NatsConnection } from "@nats-io/transport-node"
import { NatsServer, type NatsServerOptions, type NatsServerShape } from "@replicant/nats/testing"
import { Effect, type Scope } from "effect"

/** Which servers there are to test on. The current one comes by Go: see .ci/run. */
export const programs = {
  "nats-server": "nats-server",
  "a current nats-server": fileURLToPath(new URL("../../../node_modules/.cache/nats/nats-server", import.meta.url))
} as const

export type Program = keyof typeof programs

/** A client of its own, as a reader has it. */
export const client = (server: NatsServerShape): Effect.Effect<NatsConnection, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => connect({ servers: server.url, reconnect: false })),
    (connection) => Effect.promise(() => connection.close())
  )

/** Asks the server for something, on a connection of its own. */
export const manage = <A>(server: NatsServerShape, ask: (manager: JetStreamManager) => Promise<A>): Effect.Effect<A> =>
  Effect.scoped(
    Effect.flatMap(client(server), (connection) =>
      Effect.promise(async () => ask(await jetstreamManager(connection, { checkAPI: false })))
    )
  )

type Body = (server: NatsServerShape) => Effect.Effect<unknown, unknown, Scope.Scope>

/** On one of them. */
export const onProgram = (name: Program, title: string, body: Body, options: NatsServerOptions = {}): void => {
  const program = programs[name]
  const isNeeded = name === "nats-server" && process.env.CI !== undefined
  if (!isNeeded && !NatsServer.isInstalled(program)) it.skip(`${title} (no ${name} on this machine)`, () => undefined)
  else it.live(title, () => Effect.flatMap(NatsServer.make({ program, ...options }), body))
}

/** On each of them. */
export const onNats = (title: string, body: Body, options: NatsServerOptions = {}): void => {
  for (const name of Object.keys(programs) as ReadonlyArray<Program>)
    onProgram(name, `${title}, on ${name}`, body, options)
}
