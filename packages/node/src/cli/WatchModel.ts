/** What `replicant watch` shows, and what a look and a key make of it. Pure: `WatchFrame.ts` draws it, `WatchCommand.ts` runs it. */
import type { ReplicationError } from "@replicant/core"
import type { SlotOverview } from "@replicant/core/operations"
import * as Result from "effect/Result"

/** By what slots are ordered: what wants attention is first, but with `name`. */
export const orders = ["lag", "kept", "rate", "name"] as const
export type Order = (typeof orders)[number]

export interface WatchModel {
  /** What was seen last. */
  readonly overview: SlotOverview.SlotOverview | undefined
  /** Of each slot what its consumer was behind at the last looks, in bytes; a look that failed is a gap. */
  readonly trends: ReadonlyMap<string, ReadonlyArray<number | undefined>>
  /** What keeps it from looking, and since when, in milliseconds since 1970. */
  readonly failure: { readonly error: ReplicationError; readonly since: number } | undefined
  readonly order: Order
  /** By name, since places change. */
  readonly selected: string | undefined
  readonly shows: "all" | "one"
}

/** At first. A slot that is named is shown by itself. */
export const initial = (options: { readonly order: Order; readonly slot: string | undefined }): WatchModel => ({
  overview: undefined,
  trends: new Map(),
  failure: undefined,
  order: options.order,
  selected: options.slot,
  shows: options.slot === undefined ? "all" : "one"
})

/** How many looks a trend holds: more than a terminal has columns for. */
const mostLooks = 240

/** One more look, at this time. */
export const looked = (
  model: WatchModel,
  look: Result.Result<SlotOverview.SlotOverview, ReplicationError>,
  time: number
): WatchModel => {
  const overview = Result.isSuccess(look) ? look.success : undefined
  const slots = overview?.slots ?? model.overview?.slots ?? []
  const trends = slots.map(({ lagBytes, name }) => {
    const now = overview === undefined ? undefined : lagBytes
    return [name, [...(model.trends.get(name) ?? []), now].slice(-mostLooks)] as const
  })
  return {
    ...model,
    overview: overview ?? model.overview,
    trends: new Map(trends),
    failure: Result.isSuccess(look) ? undefined : { error: look.failure, since: model.failure?.since ?? time }
  }
}

type Slot = SlotOverview.SlotStatus

const weights: { readonly [By in Exclude<Order, "name">]: (slot: Slot) => number | undefined } = {
  lag: (slot) => slot.lagBytes,
  kept: (slot) => slot.budget.retainedBytes,
  rate: (slot) => slot.confirmedPerSecond
}

/** The slots as they are ordered. A lost one is first: nothing is worse; of what is equal the name decides. */
export const ordered = (slots: ReadonlyArray<Slot>, order: Order): ReadonlyArray<Slot> => {
  const byName = (left: Slot, right: Slot) => (left.name < right.name ? -1 : left.name > right.name ? 1 : 0)
  if (order === "name") return slots.toSorted(byName)
  const weight = (slot: Slot): number =>
    slot.budget.level === "lost" ? Number.POSITIVE_INFINITY : (weights[order](slot) ?? -1)
  return slots.toSorted((left, right) => Math.sign(weight(right) - weight(left)) || byName(left, right))
}

/** The slot that is chosen: the first, until somebody chooses. */
export const chosen = (model: WatchModel): Slot | undefined => {
  const slots = model.overview?.slots ?? []
  return slots.find(({ name }) => name === model.selected) ?? ordered(slots, model.order)[0]
}

const choose = (model: WatchModel, steps: number): WatchModel => {
  const slots = ordered(model.overview?.slots ?? [], model.order)
  const place = slots.findIndex(({ name }) => name === chosen(model)?.name)
  const next = slots[Math.max(0, Math.min(slots.length - 1, place + steps))]
  return { ...model, selected: next?.name }
}

const after = (order: Order): Order => orders[(orders.indexOf(order) + 1) % orders.length]!

/** What a key makes of it; `undefined` to end. A key that means nothing changes nothing. */
export const pressed = (model: WatchModel, key: string): WatchModel | undefined => {
  switch (key) {
    case "q":
      return undefined
    case "s":
      return { ...model, order: after(model.order) }
    case "up":
    case "k":
      return choose(model, -1)
    case "down":
    case "j":
      return choose(model, 1)
    case "return":
    case "enter":
    case "right":
      return { ...model, shows: "one", selected: chosen(model)?.name }
    case "escape":
    case "backspace":
    case "left":
      return { ...model, shows: "all" }
    default:
      return model
  }
}
