/** The engines into which a sink under load writes, and what they hold, read back as readers see it. */
import { fileURLToPath } from "node:url"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { NatsServer, type NatsServerFailed } from "@replicant/nats/testing"
import { RedisServer, type RedisServerFailed } from "@replicant/redis/testing"
import { Context, Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import type { SinkOptions } from "./runSink.ts"

/** A running engine. */
interface Engine {
  readonly kind: SinkOptions["engine"]
  readonly url: string
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void, unknown>
  /** How many messages it holds. */
  readonly stored: Effect.Effect<number, unknown>
  /** The ids of all rows, in the order in which readers see them. */
  readonly ids: Effect.Effect<ReadonlyArray<number>, unknown>
}

type Entries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

const idOf = (value: string): number => JSON.parse(value).after.id

const redis = (stream: string) =>
  Effect.map(RedisServer.make(), ({ kill, send, start, url }): Engine => {
    const ids = Effect.gen(function* () {
      const client = Context.get(yield* Layer.build(NodeRedis.layer({ url })), Redis.Redis)
      const found: Array<number> = []
      let from = "-"
      while (true) {
        const entries = yield* client.send<Entries>("XRANGE", stream, from, "+", "COUNT", "10000")
        for (const [, fields] of entries) found.push(idOf(fields[fields.indexOf("value") + 1]!))
        if (entries.length === 0) return found
        from = `(${entries.at(-1)![0]}`
      }
    })
    const stored = Effect.map(send("XLEN", stream), (answer) => Number(answer.slice(1)))
    return { kind: "redis", url, kill, start, stored, ids: Effect.scoped(ids) }
  })

/** A current NATS, which .ci/run installs by Go. */
const currentNats = fileURLToPath(new URL("../../node_modules/.cache/nats/nats-server", import.meta.url))

const nats = (program: string) => (stream: string) =>
  Effect.map(NatsServer.make({ program }), ({ kill, start, url }): Engine => {
    const asked = <A>(ask: (manager: Awaited<ReturnType<typeof jetstreamManager>>) => Promise<A>) =>
      Effect.tryPromise(async () => {
        const connection = await connect({ servers: url, reconnect: false })
        try {
          return await ask(await jetstreamManager(connection, { checkAPI: false }))
        } finally {
          await connection.close()
        }
      })
    // Records of writers are on a subject of their own.
    const stored = asked(async ({ streams }) => {
      const { state } = await streams.info(stream, { subjects_filter: stream })
      return state.subjects?.[stream] ?? 0
    })
    const ids = asked(async ({ streams }) => {
      const { state } = await streams.info(stream)
      const found: Array<number> = []
      for (let from = state.first_seq; from <= state.last_seq; from += 1000) {
        const sequences = Array.from({ length: Math.min(1000, state.last_seq - from + 1) }, (_, n) => from + n)
        for (const message of await Promise.all(sequences.map((seq) => streams.getMessage(stream, { seq }))))
          if (message?.subject === stream) found.push(idOf(message.string()))
      }
      return found
    })
    return { kind: "nats", url, kill, start, stored, ids }
  })

/** Each by name: what it needs of the machine, and how it is started, for one stream. */
interface Installed {
  readonly isInstalled: () => boolean
  readonly start: (stream: string) => Effect.Effect<Engine, NatsServerFailed | RedisServerFailed, Scope.Scope>
}

const engines = {
  redis: { isInstalled: () => RedisServer.isInstalled(), start: redis },
  nats: { isInstalled: () => NatsServer.isInstalled(), start: nats("nats-server") },
  "nats-current": { isInstalled: () => NatsServer.isInstalled(currentNats), start: nats(currentNats) }
} satisfies Readonly<Record<string, Installed>>

export type EngineName = keyof typeof engines

export const engineNames = Object.keys(engines) as ReadonlyArray<EngineName>

export const isInstalled = (name: EngineName): boolean => engines[name].isInstalled()

/** One in the scope. */
export const startEngine = (name: EngineName, stream: string) => (engines[name] as Installed).start(stream)
