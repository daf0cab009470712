/** `replicant lag`: one number for probes and scripts, with the exit codes of monitoring plugins. */
import { type ReplicationError, SlotNotFound } from "@replicant/core"
import type { WalSender } from "@replicant/core/driver"
import { SlotOverview } from "@replicant/core/operations"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { judgeLag, probeCodes } from "./LagVerdict.ts"
import * as LiveLine from "./LiveLine.ts"
import { measureFlag, timeFlag } from "./Measure.ts"
import { LookFailed, ReportFormat, Verdict } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"

/** How often one looks for a time: within some looks a consumer that keeps up has confirmed what was there at the first. */
const looks = 5
const lookInterval = "500 millis"

const find = (overview: SlotOverview.SlotOverview, slot: string) => {
  const found = overview.slots.find(({ name }) => name === slot)
  return found === undefined ? Effect.fail(new SlotNotFound({ slot })) : Effect.succeed(found)
}

/**
 * The slot by one look; by some of them where its time is asked for and the first does not tell. When the time is up, what was seen by
 * then counts.
 */
export const lookFor = (
  slot: string,
  asks: "bytes" | "time",
  timeout: number
): Effect.Effect<SlotOverview.SlotStatus, LookFailed | ReplicationError, WalSender> =>
  SlotOverview.watch({ interval: lookInterval }).pipe(
    Stream.mapEffect(Result.match({ onFailure: Effect.fail, onSuccess: (overview) => find(overview, slot) })),
    Stream.take(asks === "bytes" ? 1 : looks),
    Stream.takeUntil(({ budget, lagIsLonger, lagMillis }) => {
      return budget.level === "lost" || (lagMillis !== undefined && !lagIsLonger)
    }),
    Stream.interruptWhen(Effect.sleep(timeout)),
    Stream.runLast,
    Effect.flatMap(
      Option.match({
        onNone: () => Effect.fail(new LookFailed({ message: `the server has not answered within ${timeout} ms` })),
        onSome: Effect.succeed
      })
    )
  )

const number = (value: number | undefined): string => (value === undefined ? "" : `${value}\n`)

export const command = Command.make(
  "lag",
  {
    slot: Flag.String("slot").pipe(Flag.withDescription("The slot whose consumer is measured")),
    time: Root.switchFlag("time", "Print seconds instead of bytes"),
    warn: measureFlag("warn", "Exit code 1 from so much on: bytes or a time; again for both").pipe(Flag.atLeast(0)),
    critical: measureFlag("critical", "Exit code 2 from so much on").pipe(Flag.atLeast(0)),
    timeout: timeFlag("timeout", "Exit code 3 where nothing is known by then").pipe(Flag.withDefault(10_000))
  },
  ({ critical, slot, time, timeout, warn }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      const asksTime = time || [...warn, ...critical].some((limit) => "millis" in limit)
      const lag = yield* lookFor(slot, asksTime ? "time" : "bytes", timeout).pipe(
        Effect.provide(Root.walSender(shared)),
        Effect.catch((failure) => Effect.fail(new Verdict({ exitCode: probeCodes.unknown, failure })))
      )
      const { lagBytes, lagIsLonger, lagMillis } = lag
      const { level, text } = judgeLag(lag, { warn, critical })
      const json = { slot, level, lagBytes: lagBytes ?? null, lagMillis: lagMillis ?? null, lagIsLonger, text }
      const seconds = lagMillis === undefined ? undefined : lagMillis / 1000
      yield* output.write(shared.json ? `${JSON.stringify(json)}\n` : number(time ? seconds : lagBytes))
      if (level === "ok") return
      if ((yield* ReportFormat) === "text") (yield* LiveLine.Standard).writeLine(`${level}: ${text}`)
      return yield* new Verdict({ exitCode: probeCodes[level], failure: undefined })
    })
).pipe(
  Command.withDescription("How far a slot's consumer is behind: one number, with an exit code for probes"),
  Command.withExamples([
    { command: "replicant lag --slot orders", description: "In bytes" },
    {
      command: "replicant lag --slot orders --warn 100MB --warn 1min --critical 10GB",
      description: "0 well, 1 warning, 2 critical, 3 could not look"
    }
  ])
)
