/**
 * Network addresses in PostgreSQL's binary format, to the text its output functions print.
 *
 * Source: `network_send` in src/backend/utils/adt/network.c, src/port/inet_net_ntop.c, mac.c, mac8.c
 */
import type { ByteReader } from "../protocol/ByteReader.ts"

/** Two hex digits for each byte. */
export const hexPairs: ReadonlyArray<string> = Array.from({ length: 256 }, (_, byte) =>
  byte.toString(16).padStart(2, "0")
)

const quad = (bytes: Uint8Array, at: number): string =>
  `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`

/** The longest run of zeros, of two at least, becomes `::`, and an address that embeds one of version 4 shows it. */
const version6 = (bytes: Uint8Array, at: number): string => {
  const groups = Array.from({ length: 8 }, (_, index) => (bytes[at + index * 2]! << 8) | bytes[at + index * 2 + 1]!)
  let from = -1
  let length = 1
  for (let index = 0; index < 8; index++) {
    let end = index
    while (end < 8 && groups[end] === 0) end += 1
    if (end - index > length) {
      from = index
      length = end - index
    }
    if (end > index) index = end
  }
  const isEmbedding = from === 0 && (length === 6 || (length === 5 && groups[5] === 0xffff))
  const hex = (part: ReadonlyArray<number>): string => part.map((group) => group.toString(16)).join(":")
  if (isEmbedding) return `::${length === 5 ? "ffff:" : ""}${quad(bytes, at + 12)}`
  return from < 0 ? hex(groups) : `${hex(groups.slice(0, from))}::${hex(groups.slice(from + length))}`
}

/** What PostgreSQL calls the families, on whatever machine it runs. */
const families = { inet: 2, inet6: 3 } as const

const addressText = (reader: ByteReader, type: "inet" | "cidr"): string => {
  const family = reader.uint8()
  const bits = reader.uint8()
  const isCidr = reader.uint8()
  const length = reader.uint8()
  if (family !== families.inet && family !== families.inet6) reader.fail("an address of unknown family")
  const isVersion6 = family === families.inet6
  if (length !== (isVersion6 ? 16 : 4)) reader.fail("an address of another length than its family's")
  if (bits > length * 8) reader.fail("a netmask longer than its address")
  if (isCidr !== (type === "cidr" ? 1 : 0)) reader.fail("an inet for a cidr, or the reverse")
  const at = reader.skip(length)
  const text = isVersion6 ? version6(reader.bytes, at) : quad(reader.bytes, at)
  return type === "cidr" || bits !== length * 8 ? `${text}/${bits}` : text
}

/** The netmask is left out where it covers the whole address. */
export const inetText = (reader: ByteReader): string => addressText(reader, "inet")

export const cidrText = (reader: ByteReader): string => addressText(reader, "cidr")

const macText =
  (length: 6 | 8) =>
  (reader: ByteReader): string => {
    const at = reader.skip(length)
    let text = hexPairs[reader.bytes[at]!]!
    for (let index = 1; index < length; index++) text += `:${hexPairs[reader.bytes[at + index]!]!}`
    return text
  }

export const macaddrText = macText(6)

export const macaddr8Text = macText(8)
