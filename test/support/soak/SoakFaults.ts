/** The soak's faults: each happens to a consumer, its connection or the server, and has passed when its effect ends. */
import { rmSync, writeFileSync } from "node:fs"
import type { PgServerShape } from "@replicant/node/testing"
import { Effect } from "effect"
import { eventually } from "../eventually.ts"
import type { SoakConsumer } from "./SoakConsumer.ts"

export interface SoakFault {
  readonly name: string
  /** Of how many it is one. */
  readonly weight: number
  readonly provoke: (server: PgServerShape, consumer: SoakConsumer) => Effect.Effect<unknown, unknown>
}

/** The walsender's pid, `undefined` where the slot is free. */
const walSenderPid = (server: PgServerShape, { slot }: SoakConsumer) =>
  Effect.map(
    server.query(`SELECT active_pid FROM pg_replication_slots WHERE slot_name = '${slot}'`),
    ([row]) => (row?.active_pid ?? undefined) as number | undefined
  )

const signalWalSender =
  (call: string): SoakFault["provoke"] =>
  (server, { slot }) =>
    server.query(
      `SELECT ${call}(active_pid) FROM pg_replication_slots WHERE slot_name = '${slot}' AND active_pid IS NOT NULL`
    )

const ends = ["fin", "rst"] as const

const either = <A>(values: readonly [A, A]): A => values[Math.random() < 0.5 ? 0 : 1]

/** What the network does for a while. */
const whileTheNetwork =
  (misbehaves: (consumer: SoakConsumer) => Effect.Effect<unknown>, millis: number): SoakFault["provoke"] =>
  (_, consumer) =>
    misbehaves(consumer).pipe(Effect.andThen(Effect.sleep(Math.random() * millis)), Effect.andThen(consumer.proxy.pass))

export const soakFaults: ReadonlyArray<SoakFault> = [
  { name: "walsender terminated", weight: 6, provoke: signalWalSender("pg_terminate_backend") },
  { name: "walsender cancelled", weight: 3, provoke: signalWalSender("pg_cancel_backend") },
  { name: "cut", weight: 8, provoke: (_, { proxy }) => proxy.cut(either(ends)) },
  {
    name: "cut amid bytes",
    weight: 8,
    provoke: (_, { proxy }) => proxy.cutAfter(1 + Math.floor(Math.random() * 200_000), either(ends))
  },
  { name: "stalled", weight: 3, provoke: whileTheNetwork(({ proxy }) => proxy.stall(), 5000) },
  {
    name: "stalled one way",
    weight: 3,
    provoke: whileTheNetwork(({ proxy }) => proxy.stall(either(["toClient", "toServer"])), 5000)
  },
  { name: "sliced", weight: 3, provoke: whileTheNetwork(({ proxy }) => proxy.slice(7, 1), 3000) },
  {
    name: "consumer killed",
    weight: 6,
    provoke: (_, consumer) => Effect.andThen(consumer.signal("SIGKILL"), consumer.replace)
  },
  {
    name: "consumer told to leave",
    weight: 4,
    provoke: (_, consumer) => Effect.andThen(consumer.signal("SIGTERM"), consumer.replace)
  },
  {
    name: "consumer stopped for a while",
    weight: 2,
    provoke: (_, consumer) =>
      consumer
        .signal("SIGSTOP")
        .pipe(Effect.andThen(Effect.sleep(Math.random() * 5000)), Effect.andThen(consumer.signal("SIGCONT")))
  },
  {
    name: "slow handler",
    weight: 3,
    provoke: (_, { slowdown }) =>
      Effect.sync(() => writeFileSync(slowdown, "")).pipe(
        Effect.andThen(Effect.sleep(Math.random() * 4000)),
        Effect.andThen(Effect.sync(() => rmSync(slowdown)))
      )
  },
  { name: "server restarted fast", weight: 1, provoke: (server) => server.restart("fast") },
  { name: "server restarted immediate", weight: 2, provoke: (server) => server.restart("immediate") },
  { name: "server killed", weight: 1, provoke: (server) => Effect.andThen(server.kill, server.start) },
  {
    name: "walsender killed",
    weight: 1,
    // All of the server's processes go down with it, and recover.
    provoke: (server, consumer) =>
      Effect.flatMap(walSenderPid(server, consumer), (pid) =>
        pid === undefined
          ? Effect.void
          : Effect.andThen(
              Effect.sync(() => process.kill(pid, "SIGKILL")),
              eventually(server.query("SELECT 1"), { what: "the server has recovered" })
            )
      )
  },
  { name: "checkpoint", weight: 3, provoke: (server) => server.query("CHECKPOINT") }
]

/** One of them, by weight. */
export const pickFault = (): SoakFault => {
  let at = Math.random() * soakFaults.reduce((sum, { weight }) => sum + weight, 0)
  return soakFaults.find(({ weight }) => {
    at -= weight
    return at < 0
  })!
}
