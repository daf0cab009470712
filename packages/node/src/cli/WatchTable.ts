/** Slots as rows for people: what stands in each column, what is left out where there is no room for it, and what is worth a colour. */
import type { SlotOverview, WalBudget } from "@replicant/core/operations"
import type { Palette } from "./ChangeText.ts"
import { cutTo, displayWidth, padTo, sparkline } from "./DisplayWidth.ts"
import { formatTime } from "./Measure.ts"
import { plainText } from "./PlainText.ts"
import { type Column, formatBytes } from "./Table.ts"

type Slot = SlotOverview.SlotStatus

/** A slot and the course of its lag. */
export interface WatchRow {
  readonly slot: Slot
  readonly trend: ReadonlyArray<number | undefined>
}

export type Paint = keyof Palette | undefined

/** A column, and how soon it goes where there is no room: the higher, the sooner. */
export interface WatchColumn extends Column<WatchRow> {
  readonly rank: number
  readonly paint?: ((row: WatchRow) => Paint) | undefined
}

const some = <A>(value: A | undefined, format: (value: A) => string): string | undefined =>
  value === undefined ? undefined : format(value)

/** Bytes a second. */
export const formatPace = (bytes: number): string => `${formatBytes(Math.max(0, Math.round(bytes)))}/s`

/** How long somebody is behind: more than that where it is not known how much more. */
export const formatBehind = ({ lagIsLonger, lagMillis }: Pick<Slot, "lagIsLonger" | "lagMillis">): string | undefined =>
  some(lagMillis, (millis) => `${lagIsLonger ? ">" : ""}${formatTime(millis)}`)

/** What becomes of its WAL, in a few words. */
export const formatForecast = (budget: WalBudget.WalBudget): string | undefined => {
  const { level, millisUntilDiskFull, millisUntilLost } = budget
  if (level === "lost") return "lost"
  if (budget.walStatus === "unreserved") return "lost at next checkpoint"
  const lost = millisUntilLost ?? Number.POSITIVE_INFINITY
  const full = millisUntilDiskFull ?? Number.POSITIVE_INFINITY
  if (Math.min(lost, full) < Number.POSITIVE_INFINITY) {
    return lost <= full ? `lost in ${formatTime(lost)}` : `disk full in ${formatTime(full)}`
  }
  return some(budget.safeBytes, (bytes) => `${formatBytes(Math.max(0, bytes))} left`)
}

/** What its consumer is doing, or that there is none. */
export const formatState = (slot: Slot): string => {
  if (slot.budget.level === "lost") return slot.invalidationReason ?? "lost"
  if (slot.synced === true) return "synced"
  if (slot.activePid === undefined) return "inactive"
  return slot.walSender?.state ?? "active"
}

const levelPaint = ({ slot }: WatchRow): Paint =>
  (({ ok: undefined, warning: "yellow", critical: "red", lost: "red" }) as const)[slot.budget.level]

const statePaint = ({ slot }: WatchRow): Paint => {
  if (slot.budget.level === "lost") return "red"
  return slot.activePid === undefined ? "dim" : "green"
}

/** How many looks a trend in a table has. */
const trendColumns = 12

export const columns: ReadonlyArray<WatchColumn> = [
  { heading: "slot", value: ({ slot }) => slot.name, rank: 0 },
  { heading: "lag", value: ({ slot }) => some(slot.lagBytes, formatBytes), align: "right", rank: 1 },
  { heading: "time", value: ({ slot }) => formatBehind(slot), align: "right", rank: 4 },
  { heading: "rate", value: ({ slot }) => some(slot.confirmedPerSecond, formatPace), align: "right", rank: 6 },
  { heading: "trend", value: ({ trend }) => sparkline(trend, trendColumns), rank: 7, paint: () => "cyan" },
  { heading: "keeps", value: ({ slot }) => some(slot.budget.retainedBytes, formatBytes), align: "right", rank: 5 },
  { heading: "forecast", value: ({ slot }) => formatForecast(slot.budget), rank: 3, paint: levelPaint },
  { heading: "state", value: ({ slot }) => formatState(slot), rank: 2, paint: statePaint },
  {
    heading: "spilled",
    value: ({ slot }) => some(slot.decoding?.spillBytes, formatBytes),
    align: "right",
    rank: 9
  },
  { heading: "application", value: ({ slot }) => slot.walSender?.applicationName || undefined, rank: 8 },
  { heading: "client", value: ({ slot }) => slot.walSender?.clientAddress, rank: 11 },
  { heading: "database", value: ({ slot }) => slot.database, rank: 10 },
  { heading: "plugin", value: ({ slot }) => slot.plugin ?? slot.type, rank: 12 }
]

/** A sparkline is of a terminal; as text it says nothing that can be read or searched. */
export const plainColumns: ReadonlyArray<WatchColumn> = columns.filter(({ heading }) => heading !== "trend")

const gap = "  "

interface Measured {
  readonly column: WatchColumn
  readonly width: number
  readonly cells: ReadonlyArray<string>
}

const measure = (column: WatchColumn, rows: ReadonlyArray<WatchRow>): Measured => {
  const cells = rows.map((row) => plainText(column.value(row) ?? "-"))
  const width = Math.max(...[column.heading, ...cells].map(displayWidth))
  return { column, cells, width }
}

/** The columns that there is room for, by their ranks, in their own order. The first is always there. */
const fitting = (measured: ReadonlyArray<Measured>, columns: number): ReadonlyArray<Measured> => {
  const kept = new Set<Measured>()
  let width = -gap.length
  for (const each of measured.toSorted((left, right) => left.column.rank - right.column.rank)) {
    if (kept.size > 0 && width + gap.length + each.width > columns) continue
    width += gap.length + each.width
    kept.add(each)
  }
  return measured.filter((each) => kept.has(each))
}

/** The table's lines, the headings first, none wider than `width`. */
export const tableLines = (
  rows: ReadonlyArray<WatchRow>,
  { palette, width }: { readonly palette: Palette; readonly width: number }
): ReadonlyArray<string> => {
  const shown = fitting(
    columns.map((column) => measure(column, rows)),
    width
  )
  const cell = ({ column, width: own }: Measured, text: string): string =>
    padTo(cutTo(text, Math.min(own, width)), Math.min(own, width), column.align)
  const headings = shown.map((each) => palette.dim(cell(each, each.column.heading.toUpperCase())))
  return [
    headings.join(gap).trimEnd(),
    ...rows.map((row, index) =>
      shown
        .map((each) => {
          const text = cell(each, each.cells[index]!)
          const paint = each.column.paint?.(row)
          return paint === undefined ? text : palette[paint](text)
        })
        .join(gap)
        .trimEnd()
    )
  ]
}
