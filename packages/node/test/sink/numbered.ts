/** Messages that bear their number as their place. */
import { Lsn } from "@replicant/core"
import { type Message, Place } from "@replicant/core/sink"

/** From `from` up to, and without, `to`. */
export const messages = (from: number, to: number): [Message, ...Array<Message>] =>
  Array.from({ length: to - from }, (_, index): Message => {
    const n = from + index
    const id = Place.within(Lsn.make(0x100n + BigInt(Math.floor(n / 10)) * 8n)!, n % 10)
    return { id, systemId: "7", op: "c", to: "public.items", key: `["${n}"]`, value: `{"op":"c","after":{"n":${n}}}` }
  }) as [Message, ...Array<Message>]

/** Which of them stands there. */
export const numberOf = (id: string): number => {
  const { lsn, ordinal = 0 } = Place.parse(id)!
  return Number((lsn - 0x100n) / 8n) * 10 + ordinal
}
