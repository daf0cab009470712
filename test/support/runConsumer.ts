/**
 * A consumer as a program of its own, to be killed, stopped and told to leave. Each transaction that it has handled is
 * a line of a file, its ledger, before it is acknowledged: `endLsn id,id,...`. Its options are one argument of JSON, of
 * type `ConsumerOptions`. It loads, says `@loaded`, and begins at the first line of its standard input; it says
 * `@begun` as a handler begins, and `@left` with its peak of memory, and what it worked, at its end.
 */
import { appendFileSync, existsSync } from "node:fs"
import { NodeRuntime } from "@effect/platform-node"
import { Handler, Lsn, Pgoutput, type Transaction, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Redacted, Schedule } from "effect"
import type { ConsumerOptions } from "./Consumer.ts"

const options = JSON.parse(process.argv[2] ?? "{}") as ConsumerOptions

const say = (line: string): Effect.Effect<void> => Effect.sync(() => void process.stdout.write(`@${line}\n`))

/** Held up while the gate's file is not there. */
const passGate = Effect.suspend(() => {
  const { gate } = options
  return gate === undefined
    ? Effect.void
    : Effect.repeat(
        Effect.sync(() => existsSync(gate)),
        { until: (isOpen) => isOpen, schedule: Schedule.spaced("10 millis") }
      )
})

const handle = Effect.fnUntraced(function* ({ changes, nextLsn }: Transaction) {
  if (options.gate !== undefined) yield* say("begun")
  yield* passGate
  const inserts = changes.filter((change) => change._tag === "Insert")
  const facts = inserts.map(({ row }) =>
    options.lengthOf === undefined ? row.id : String(row[options.lengthOf]).length
  )
  // Up to twice this: a kill finds it now before the ledger is written, now after.
  const pause = Effect.suspend(() => Effect.sleep(Math.random() * (options.handlerMillis ?? 0)))
  if (options.handlerMillis !== undefined) yield* pause
  yield* Effect.sync(() => appendFileSync(options.ledger, `${Lsn.format(nextLsn.lsn)} ${facts.join(",")}\n`))
  if (options.handlerMillis !== undefined) yield* pause
})

const begin = Effect.callback<void>((resume) => {
  process.stdin.once("data", () => {
    process.stdin.destroy()
    resume(Effect.void)
  })
  return Effect.sync(() => void process.stdin.destroy())
})

const program = say("loaded").pipe(
  Effect.andThen(begin),
  Effect.andThen(
    withLogicalStream(
      {
        slot: options.slot,
        plugin: Pgoutput.make({ publications: [options.publication] }),
        reconnect: Schedule.spaced("100 millis"),
        memory: { maxTransactionBytes: 1024 * 1024 * 1024 },
        timing: {
          acknowledgeDelay: "20 millis",
          receiverTimeout: options.receiverTimeout,
          shutdownTimeout: options.shutdownTimeout
        }
      },
      Handler.transactions(handle)
    )
  ),
  Effect.provide(
    PgWalSender.layer({
      url: Redacted.make(options.url),
      host: options.host,
      port: options.port,
      settings: options.settings
    })
  ),
  Effect.ensuring(Effect.suspend(() => say(`left ${process.resourceUsage().maxRSS * 1024} ${process.cpuUsage().user}`)))
)

NodeRuntime.runMain(program)
