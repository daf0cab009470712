/**
 * A message's place as an id of a Redis stream: `26386344-3`. So a stream can be read from an LSN on, and ids grow as places do.
 *
 * The first number is the place's LSN. The second is 0 for what ends there, and else made of ordinal and part.
 */
import { Place } from "@replicant/core/sink"

const parts = 65_536

/** The id in a stream; `undefined` for what is no place. */
export const fromPlace = (id: string): string | undefined => {
  const place = Place.parse(id)
  if (place === undefined) return undefined
  const { lsn, ordinal, part } = place
  return `${lsn}-${ordinal === undefined ? 0 : ordinal * parts + part + 1}`
}

/** The same for many that are places and mostly of one transaction: its LSN is told once, and nothing is taken apart. */
export const reader = (): ((id: string) => string | undefined) => {
  let lsn = ""
  let decimal = ""
  return (id) => {
    if (id.length !== 25 || id[16] !== "-") return fromPlace(id)
    if (!id.startsWith(lsn) || lsn === "") {
      lsn = id.slice(0, 16)
      decimal = String(BigInt(`0x${lsn}`))
    }
    return `${decimal}-${Number.parseInt(id.slice(17), 16) * parts + 1}`
  }
}
