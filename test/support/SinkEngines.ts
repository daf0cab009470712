/** The engines into which a sink under load writes, and what they hold, read back as readers see it. */
import { randomInt } from "node:crypto"
import { fileURLToPath } from "node:url"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { NatsServer, type NatsServerFailed } from "@replicant/nats/testing"
import { RedisServer, type RedisServerFailed } from "@replicant/redis/testing"
import { Context, Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import { eventually } from "./eventually.ts"
import type { SinkOptions } from "./runSink.ts"

/** A running engine. */
interface Engine {
  readonly kind: SinkOptions["engine"]
  readonly url: string
  readonly replicas?: number
  readonly kill: Effect.Effect<void, unknown>
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

/** What one of these servers, which are one, tells of a stream. */
const told = (servers: ReadonlyArray<string>, stream: string) => {
  const asked = <A>(ask: (manager: JetStreamManager) => Promise<A>) =>
    Effect.tryPromise(async () => {
      const connection = await connect({ servers: [...servers], reconnect: false })
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
  const leader = asked(async ({ streams }) => (await streams.info(stream)).cluster?.leader ?? "")
  return { stored, ids, leader }
}

const nats = (program: string) => (stream: string) =>
  Effect.map(NatsServer.make({ program }), ({ kill, start, url }): Engine => {
    const { ids, stored } = told([url], stream)
    return { kind: "nats", url, kill, start, stored, ids }
  })

/** Three of them, each with a replica of the stream; the one that leads it is killed. */
const natsCluster = (program: string) =>
  Effect.fnUntraced(function* (stream: string) {
    const [first, nodes] = [randomInt(15_000, 32_000), [0, 1, 2] as const]
    const routes = nodes.map((n) => `"nats://127.0.0.1:${first + n}"`).join(", ")
    const config = (n: number) =>
      `server_name: n${n}\ncluster { name: c, listen: "127.0.0.1:${first + n}", routes: [${routes}] }`
    const servers = yield* Effect.all(nodes.map((n) => NatsServer.make({ program, config: config(n) })))
    const urls = servers.map(({ url }) => url)
    const { ids, leader, stored } = told(urls, stream)
    let killed = servers[0]!
    const kill = Effect.gen(function* () {
      const name = yield* eventually(
        Effect.filterOrFail(leader, (known) => known !== ""),
        { what: "it has a leader" }
      )
      killed = servers[Number(name.slice(1))]!
      yield* killed.kill
    })
    const start = Effect.suspend(() => killed.start)
    return { kind: "nats", url: urls.join(","), kill, start, stored, ids, replicas: 3 } satisfies Engine
  })

/** Each by name: what it needs of the machine, and how it is started, for one stream. */
interface Installed {
  readonly isInstalled: () => boolean
  readonly start: (stream: string) => Effect.Effect<Engine, NatsServerFailed | RedisServerFailed, Scope.Scope>
}

const engines = {
  redis: { isInstalled: () => RedisServer.isInstalled(), start: redis },
  nats: { isInstalled: () => NatsServer.isInstalled(), start: nats("nats-server") },
  "nats-current": { isInstalled: () => NatsServer.isInstalled(currentNats), start: nats(currentNats) },
  "nats-cluster": { isInstalled: () => NatsServer.isInstalled(currentNats), start: natsCluster(currentNats) }
} satisfies Readonly<Record<string, Installed>>

export type EngineName = keyof typeof engines

export const engineNames = Object.keys(engines) as ReadonlyArray<EngineName>

export const isInstalled = (name: EngineName): boolean => engines[name].isInstalled()

/** One in the scope. */
export const startEngine = (name: EngineName, stream: string) => (engines[name] as Installed).start(stream)
