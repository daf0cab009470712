/**
 * One picture of `replicant watch`: the lines that fill a terminal of some size, and no more. Pure. No line is as wide as the terminal,
 * since one that is would wrap.
 */
import { Lsn } from "@replicant/core"
import { formatVersion } from "@replicant/core/driver"
import { type SlotOverview, WalBudget } from "@replicant/core/operations"
import type { Palette } from "./ChangeText.ts"
import { cutTo, padTo, sparkline } from "./DisplayWidth.ts"
import { formatTime } from "./Measure.ts"
import { plainText } from "./PlainText.ts"
import { formatBytes, formatCount, plural } from "./Table.ts"
import { chosen, ordered, type WatchModel } from "./WatchModel.ts"
import { formatBehind, formatForecast, formatPace, formatState, tableLines } from "./WatchTable.ts"

export interface FrameOptions {
  /** Of the terminal. */
  readonly columns: number
  readonly rows: number
  readonly palette: Palette
  /** Milliseconds since 1970. */
  readonly time: number
  /** How often is looked, in milliseconds. */
  readonly interval: number
  /** Whether there is somebody to press keys. */
  readonly hasKeys: boolean
}

type Overview = SlotOverview.SlotOverview

const joined = (...parts: ReadonlyArray<string | undefined>): string =>
  parts.filter((part) => part !== undefined && part !== "").join(", ")

const versionOf = ({ isInRecovery, serverVersion }: Overview): string =>
  `PostgreSQL ${formatVersion(serverVersion)}${isInRecovery ? ", standby" : ""}`

/** The server in one line. */
export const serverLine = (overview: Overview): string => {
  const { freeBytes, mostSlots, slots, walDirectoryBytes, walEnd, writtenPerSecond } = overview
  return [
    versionOf(overview),
    joined(`WAL ${Lsn.format(walEnd)}`, writtenPerSecond === undefined ? undefined : formatPace(writtenPerSecond)),
    joined(
      walDirectoryBytes === undefined ? undefined : `pg_wal ${formatBytes(walDirectoryBytes)}`,
      freeBytes === undefined ? undefined : `${formatBytes(freeBytes)} free`
    ),
    mostSlots === undefined ? plural(slots.length, "slot") : `${slots.length} of ${plural(mostSlots, "slot")}`
  ]
    .filter((part) => part !== "")
    .join(" | ")
}

const copyLines = ({ copies }: Overview): ReadonlyArray<string> =>
  copies.map(({ applicationName, bytes, command, database, pid, relation, rows, startedAt }) =>
    plainText(
      joined(
        `${command ?? "COPY"} pid ${pid}${database === undefined ? "" : ` in ${database}`}${relation === undefined ? "" : ` of ${relation}`}`,
        rows === undefined ? undefined : plural(rows, "row"),
        bytes === undefined ? undefined : formatBytes(bytes),
        applicationName || undefined,
        startedAt === undefined ? undefined : `since ${new Date(startedAt).toISOString().slice(11, 19)} UTC`
      )
    )
  )

/** A look that takes longer than this is told of: what is shown is not how things are now. */
const slowMillis = 5000

const failureLine = ({ failure, overview }: WatchModel, { interval, time }: FrameOptions): string | undefined => {
  if (failure !== undefined) {
    return `cannot look for ${formatTime(Math.max(0, time - failure.since))}: ${plainText(failure.error.message)}`
  }
  const age = overview === undefined ? 0 : time - overview.at
  return age - interval > slowMillis ? `no answer: this is of ${formatTime(age)} ago` : undefined
}

const rightsLine = ({ lackedRights }: Overview): string | undefined =>
  lackedRights.length === 0 ? undefined : `hidden for want of a right: ${lackedRights.join(", ")} (GRANT pg_monitor)`

const lsnText = (lsn: Lsn.Lsn | undefined): string => (lsn === undefined ? "-" : Lsn.format(lsn))

/** A slot by itself: a name and a text a line. */
const details = (overview: Overview, slot: SlotOverview.SlotStatus): ReadonlyArray<readonly [string, string]> => {
  const { budget, decoding, walSender } = slot
  const of = slot.type === "logical" ? `${slot.plugin} in ${slot.database}` : "physical"
  const growth = budget.growthPerSecond
  return [
    ["slot", joined(slot.name, of, slot.temporary ? "temporary" : undefined, formatState(slot))],
    [
      "behind",
      joined(
        slot.lagBytes === undefined ? "not known" : formatBytes(slot.lagBytes),
        formatBehind(slot),
        slot.confirmedPerSecond === undefined ? undefined : `confirms ${formatPace(slot.confirmedPerSecond)}`
      )
    ],
    [
      "positions",
      `confirmed ${lsnText(slot.confirmedFlushLsn)}, kept from ${lsnText(slot.restartLsn)}, WAL ends at ${lsnText(overview.walEnd)}`
    ],
    [
      "keeps",
      joined(
        budget.retainedBytes === undefined ? "no WAL" : formatBytes(budget.retainedBytes),
        budget.limitBytes === undefined ? "no limit" : `may ${formatBytes(budget.limitBytes)}`,
        growth === undefined ? undefined : `${growth < 0 ? "shrinks" : "grows"} ${formatPace(Math.abs(growth))}`
      )
    ],
    ["forecast", joined(formatForecast(budget) ?? "none", budget.level, budget.walStatus)],
    ...(budget.reasons.length === 0 ? [] : ([["why", WalBudget.describe(budget)]] as const)),
    ...(walSender === undefined
      ? []
      : ([
          [
            "walsender",
            joined(
              `pid ${walSender.pid}`,
              walSender.state,
              walSender.applicationName || undefined,
              walSender.user,
              walSender.clientAddress,
              walSender.waitEvent
            )
          ],
          [
            "client",
            `sent ${lsnText(walSender.sentLsn)}, written ${lsnText(walSender.writeLsn)}, flushed ${lsnText(walSender.flushLsn)}, applied ${lsnText(walSender.replayLsn)}`
          ]
        ] as const)),
    ...(decoding === undefined
      ? []
      : ([
          [
            "decoded",
            `${plural(decoding.totalTransactions, "transaction")}, ${formatBytes(decoding.totalBytes)}; spilled ${formatCount(decoding.spillTransactions)}, ${formatBytes(decoding.spillBytes)}; streamed ${formatCount(decoding.streamTransactions)}, ${formatBytes(decoding.streamBytes)}`
          ]
        ] as const)),
    ...(slot.failover === undefined
      ? []
      : ([
          ["failover", joined(slot.failover ? "kept on standbys" : "no", slot.synced ? "synced here" : undefined)]
        ] as const))
  ]
}

/** Wide enough for every name of {@link details}. */
const nameWidth = 11

const oneSlot = (model: WatchModel, overview: Overview, width: number, palette: Palette): ReadonlyArray<string> => {
  const slot = chosen(model)
  if (slot === undefined || (model.selected !== undefined && slot.name !== model.selected)) {
    return [`there is no slot ${model.selected ?? ""}`.trim()]
  }
  const named = (name: string) => palette.dim(cutTo(padTo(name, nameWidth), width))
  const room = Math.max(0, width - nameWidth)
  return [
    ...details(overview, slot).map(([name, text]) => `${named(name)}${cutTo(plainText(text), room)}`),
    `${named("trend")}${palette.cyan(sparkline(model.trends.get(slot.name) ?? [], room))}`
  ]
}

/** The part of a list that is shown where not all of it is: around the place that is chosen. */
const around = (lines: ReadonlyArray<string>, place: number, room: number): ReadonlyArray<string> => {
  const from = Math.max(0, Math.min(place - Math.floor(room / 2), lines.length - room))
  return lines.slice(from, from + Math.max(1, room))
}

const marker = "> "

/** So narrow a terminal has no room to show what is chosen. */
const narrow = 12

const allSlots = (
  model: WatchModel,
  overview: Overview,
  options: FrameOptions,
  room: number
): ReadonlyArray<string> => {
  const { palette } = options
  const isMarked = options.hasKeys && options.columns > narrow
  const slots = ordered(overview.slots, model.order)
  if (slots.length === 0) return ["this server has no slots"]
  const rows = slots.map((slot) => ({ slot, trend: model.trends.get(slot.name) ?? [] }))
  const left = isMarked ? marker.length : 0
  const [headings = "", ...lines] = tableLines(rows, { palette, width: options.columns - 1 - left })
  if (!isMarked) return [headings, ...lines.slice(0, Math.max(1, room - 1))]
  const place = slots.findIndex(({ name }) => name === chosen(model)?.name)
  const marked = lines.map((line, index) => `${index === place ? palette.bold(marker) : "  "}${line}`)
  return [`  ${headings}`, ...around(marked, place, room - 1)]
}

const keys = (model: WatchModel): string =>
  model.shows === "one"
    ? "esc back | up, down another | q quit"
    : `s order: ${model.order} | up, down, enter one slot | q quit`

/** The lines of the terminal, from its top; never more than it has. */
export const frame = (model: WatchModel, options: FrameOptions): ReadonlyArray<string> => {
  const { columns, hasKeys, palette, rows } = options
  const width = Math.max(1, columns - 1)
  const { overview } = model
  const failure = failureLine(model, options)
  if (overview === undefined) return [cutTo(failure ?? "looking ...", width)]
  const plain = (text: string | undefined, paint: (text: string) => string = (each) => each) =>
    text === undefined ? [] : [paint(cutTo(text, width))]
  const head = [...plain(serverLine(overview), palette.bold), ...plain(failure, palette.red)]
  const foot = hasKeys ? plain(keys(model), palette.dim) : []
  const room = Math.max(0, rows - head.length - foot.length - 1)
  const rest = [...copyLines(overview).flatMap((line) => plain(line)), ...plain(rightsLine(overview), palette.dim)]
  // Slots come first: what else there is gets half of the room at the most.
  const below = rest.slice(0, Math.floor(room / 2))
  const left = room - below.length
  const body =
    model.shows === "one" ? oneSlot(model, overview, width, palette) : allSlots(model, overview, options, left)
  return [...head, "", ...body.slice(0, left), ...below, ...foot].slice(0, rows)
}
