/** What a probe says of a slot: the number, the exit code, and why. Pure, so that each case is tested. */
import type { SlotOverview } from "@replicant/core/operations"
import { formatTime, type Measure } from "./Measure.ts"
import { formatBytes } from "./Table.ts"

/** As monitoring plugins end: https://www.monitoring-plugins.org/doc/guidelines.html#AEN78 */
export const probeCodes = { ok: 0, warning: 1, critical: 2, unknown: 3 } as const

export interface Limits {
  readonly warn: ReadonlyArray<Measure>
  readonly critical: ReadonlyArray<Measure>
}

export interface Verdict {
  readonly level: keyof typeof probeCodes
  /** One line for whoever reads the probe's log. */
  readonly text: string
}

type Lag = Pick<SlotOverview.SlotStatus, "name" | "lagBytes" | "lagMillis" | "lagIsLonger" | "budget">

/** Whether a limit is reached; `undefined` where that cannot be told. */
const isReached = ({ lagBytes = 0, lagIsLonger, lagMillis }: Lag, limit: Measure): boolean | undefined => {
  if ("bytes" in limit) return lagBytes >= limit.bytes
  if (lagMillis === undefined) return undefined
  return lagMillis >= limit.millis ? true : lagIsLonger ? undefined : false
}

const behind = ({ lagBytes = 0, lagIsLonger, lagMillis, name }: Lag): string => {
  const time = lagMillis === undefined ? "" : `, ${lagIsLonger ? "more than " : ""}${formatTime(lagMillis)}`
  return `slot ${name} is ${formatBytes(lagBytes)}${time} behind`
}

const formatLimit = (limit: Measure): string => ("bytes" in limit ? formatBytes(limit.bytes) : formatTime(limit.millis))

/** The worst that is so; `unknown` where something asked for cannot be told, and nothing worse is known. */
export const judgeLag = (lag: Lag, limits: Limits): Verdict => {
  if (lag.budget.level === "lost") {
    return { level: "critical", text: `slot ${lag.name} is lost: the server has given it up` }
  }
  if (lag.lagBytes === undefined) {
    return { level: "unknown", text: `slot ${lag.name} keeps no WAL: it has never been used` }
  }
  const levels = [
    ["critical", limits.critical],
    ["warning", limits.warn]
  ] as const
  for (const [level, from] of levels) {
    const reached = from.find((limit) => isReached(lag, limit))
    if (reached !== undefined) return { level, text: `${behind(lag)}: ${level} from ${formatLimit(reached)} on` }
  }
  const untold = levels.flatMap(([, from]) => from).find((limit) => isReached(lag, limit) === undefined)
  return untold === undefined
    ? { level: "ok", text: behind(lag) }
    : { level: "unknown", text: `${behind(lag)}: whether for ${formatLimit(untold)} is not known` }
}
