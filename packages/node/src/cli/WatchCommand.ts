/**
 * `replicant watch`: all slots of a server, live. On a terminal one picture a look, with keys; elsewhere one table a look; with `--json`
 * one object a line. It only looks, and changes nothing.
 */
import { type ReplicationError, SlotNotFound } from "@replicant/core"
import type { WalSender } from "@replicant/core/driver"
import { SlotOverview } from "@replicant/core/operations"
import * as Clock from "effect/Clock"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as LiveLine from "./LiveLine.ts"
import { timeFlag } from "./Measure.ts"
import * as Root from "./Root.ts"
import * as Screen from "./Screen.ts"
import { Output, type OutputError } from "./StandardOutput.ts"
import { formatTable } from "./Table.ts"
import * as WalDirectory from "./WalDirectory.ts"
import * as WatchFrame from "./WatchFrame.ts"
import { initial, looked, type Order, ordered, orders, pressed, type WatchModel } from "./WatchModel.ts"
import { plainColumns } from "./WatchTable.ts"

export interface WatchFlags {
  readonly slot: Option.Option<string>
  readonly interval: number
  readonly sort: Order
  readonly once: boolean
  readonly walDirectory: Option.Option<string>
}

type Look = Result.Result<SlotOverview.SlotOverview, ReplicationError>

/** What is wrong from the start fails at once, and so does what no later look mends; the rest is waited for. */
const failingFirst = (
  looks: Stream.Stream<Look, never, WalSender>,
  slot: string | undefined
): Stream.Stream<Look, ReplicationError, WalSender> => {
  let hasSeen = false
  return Stream.mapEffect(looks, (look): Effect.Effect<Look, ReplicationError> => {
    if (Result.isFailure(look)) {
      return hasSeen && look.failure.isRetryable ? Effect.succeed(look) : Effect.fail(look.failure)
    }
    if (!hasSeen && slot !== undefined && look.success.slots.every(({ name }) => name !== slot)) {
      return Effect.fail(new SlotNotFound({ slot }))
    }
    hasSeen = true
    return Effect.succeed(look)
  })
}

type Event =
  | { readonly _tag: "Look"; readonly look: Look }
  | { readonly _tag: "Key"; readonly name: string }
  | { readonly _tag: "Redraw" }

/** What an event makes of what is shown; `undefined` to end. */
const happened = (model: WatchModel, event: Event, time: number): WatchModel | undefined => {
  switch (event._tag) {
    case "Look":
      return looked(model, event.look, time)
    case "Key":
      return pressed(model, event.name)
    case "Redraw":
      return model
  }
}

const onScreen = Effect.fnUntraced(function* (
  looks: Stream.Stream<Look, ReplicationError, WalSender>,
  beginning: WatchModel,
  interval: number
) {
  const palette = yield* Root.palette(yield* Root.command)
  const screen = yield* Screen.open
  const redraw = (): Event => ({ _tag: "Redraw" })
  const events = Stream.mergeAll(
    [
      Stream.map(looks, (look): Event => ({ _tag: "Look", look })),
      Stream.map(screen.keys, (name): Event => ({ _tag: "Key", name })),
      Stream.map(screen.sizes, redraw),
      // How long nothing could be seen goes on.
      Stream.map(Stream.fromSchedule(Schedule.spaced("1 second")), redraw)
    ],
    { concurrency: "unbounded" }
  )
  yield* events.pipe(
    Stream.mapEffect((event) => Effect.map(Clock.currentTimeMillis, (time) => ({ event, time }))),
    Stream.mapAccum(
      (): WatchModel | undefined => beginning,
      (model, { event, time }) => {
        const next = model === undefined ? undefined : happened(model, event, time)
        return [next, [{ model: next, time }]] as const
      }
    ),
    Stream.takeWhile(({ model }) => model !== undefined),
    Stream.runForEach(({ model, time }) =>
      Effect.flatMap(screen.size, (size) =>
        screen.draw(WatchFrame.frame(model!, { ...size, palette, time, interval, hasKeys: screen.hasKeys }))
      )
    )
  )
})

/** Only what was asked for. */
const chosenOf = (overview: SlotOverview.SlotOverview, slot: string | undefined): SlotOverview.SlotOverview =>
  slot === undefined ? overview : { ...overview, slots: overview.slots.filter(({ name }) => name === slot) }

const encode = Schema.encodeSync(SlotOverview.SlotOverview)

const asText = (overview: SlotOverview.SlotOverview, order: Order): string => {
  const rows = ordered(overview.slots, order).map((slot) => ({ slot, trend: [] }))
  const time = new Date(overview.at).toISOString().replace(/\.\d+/, "")
  return `${time} | ${WatchFrame.serverLine(overview)}\n${formatTable(plainColumns, rows)}\n`
}

const asLines = Effect.fnUntraced(function* (
  looks: Stream.Stream<Look, ReplicationError, WalSender>,
  format: (overview: SlotOverview.SlotOverview) => string
): Effect.fn.Return<void, ReplicationError | OutputError, WalSender> {
  const output = yield* Output
  yield* Stream.runForEach(looks, (look) =>
    Result.isSuccess(look)
      ? output.write(format(look.success))
      : Effect.logWarning(`cannot look: ${look.failure.message}`)
  )
})

/** Shows the slots as the flags and the place say where they are shown. */
export const watch = Effect.fnUntraced(function* (flags: WatchFlags) {
  const shared = yield* Root.command
  const output = yield* Output
  const slot = Option.getOrUndefined(flags.slot)
  const options = { interval: flags.interval, freeBytes: yield* WalDirectory.freeBytes(flags.walDirectory) }
  const all = failingFirst(SlotOverview.watch(options), slot)
  const looks = flags.once ? Stream.take(all, 1) : all
  const isScreen = output.isTerminal && !shared.json && !flags.once && process.env.TERM !== "dumb"
  // Lines beside the picture would tear it; what is to be told of a look stands in it.
  const quiet = new LiveLine.LiveLine({ write: () => undefined })
  const shown = isScreen
    ? Effect.provideService(
        Effect.scoped(onScreen(looks, initial({ order: flags.sort, slot }), flags.interval)),
        LiveLine.Standard,
        quiet
      )
    : asLines(looks, (overview) =>
        shared.json
          ? `${JSON.stringify(encode(chosenOf(overview, slot)))}\n`
          : asText(chosenOf(overview, slot), flags.sort)
      )
  yield* Effect.provide(shown, Root.walSender(shared))
})

/** Milliseconds: quick enough to see something move, and nothing to a server. */
const usualInterval = 2000

/** As a list: by name, and no slot by itself. */
export const asListed: WatchFlags = {
  slot: Option.none(),
  interval: usualInterval,
  sort: "name",
  once: false,
  walDirectory: Option.none()
}

export const command = Command.make(
  "watch",
  {
    slot: Flag.String("slot").pipe(Flag.withDescription("One slot, in detail"), Flag.optional),
    interval: timeFlag("interval", "How often to look: 2s").pipe(Flag.withDefault(usualInterval)),
    sort: Flag.Literals("sort", orders).pipe(
      Flag.withDescription("What is first: the greatest lag, what keeps the most WAL, the fastest; or by name"),
      Flag.withDefault("lag" as Order)
    ),
    once: Root.switchFlag("once", "Look once, as text"),
    walDirectory: WalDirectory.flag
  },
  watch
).pipe(
  Command.withDescription("All slots of a server, live: lag, what they keep and until when, who streams from them"),
  Command.withExamples([
    { command: "replicant watch", description: "On a terminal: keys s, up, down, enter, q" },
    { command: "replicant watch --once", description: "One table, for a script or a chat" },
    { command: "replicant watch --json --interval 10s", description: "One object a line" }
  ])
)
