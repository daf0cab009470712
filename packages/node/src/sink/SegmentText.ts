/**
 * What is in the files of a sink, and what they are called. Pure.
 *
 * A line is one message: `{"id":…,"op":…,"to":…,"key":…,"system":…,"value":…}`. A segment that is full is named for its first and
 * its last message, so that names sort as messages do, and say what is in them.
 */
import { type Mark, type Message, ValueJson } from "@replicant/core/sink"

const { quote } = ValueJson

/** How full segments are kept. */
export type Compression = "none" | "gzip" | "zstd"

/** What a file's name ends in. */
export const endings: { readonly [C in Compression]: string } = {
  none: ".jsonl",
  gzip: ".jsonl.gz",
  zstd: ".jsonl.zst"
}

/** A message as a line, with its line break. What an encoder makes is JSON, or goes as text. */
export const encodeLine = ({ id, key, op, systemId, to, value }: Message): string => {
  const system = systemId === undefined ? "" : `,"system":${quote(systemId)}`
  const content =
    value === undefined ? "null" : value.startsWith("{") ? value.replaceAll(/[\r\n]+/g, " ") : quote(value)
  return `{"id":"${id}","op":"${op}","to":${quote(to)},"key":${key ?? "null"}${system},"value":${content}}\n`
}

/**
 * The text up to its last line break: behind it stands what a write left that was cut off. A crash of the machine may have left
 * zeros in the place of what was written last, with lines behind them: no line of ours has one.
 */
export const wholeLines = (text: Buffer): Buffer => {
  const zero = text.indexOf(0)
  const written = zero < 0 ? text : text.subarray(0, zero)
  return written.subarray(0, written.lastIndexOf(0x0a) + 1)
}

/** The last line of whole lines. */
export const lastLine = (text: Buffer): string | undefined => {
  const end = text.length - 1
  if (end <= 0) return undefined
  return text.toString("utf8", text.lastIndexOf(0x0a, end - 1) + 1, end)
}

/** Where a line stands, without reading all of it. */
export const idOf = (line: string): string => line.slice(7, line.indexOf('"', 7))

/** Where the first line of a text stands; nothing for an empty one. */
export const firstId = (text: Buffer): string => idOf(text.toString("utf8", 0, 80))

/** The mark that a line is. */
export const markOf = (line: string): Mark => {
  const { id, system } = JSON.parse(line) as { readonly id: string; readonly system?: string }
  return { id, systemId: system }
}

/** A segment that is full. */
export interface Segment {
  readonly first: string
  readonly last: string
  readonly compression: Compression
}

const place = "[0-9A-F]{16}(?:-[0-9A-F]{8})?(?:\\.[0-9A-F]{4})?"
const form = new RegExp(`^(${place})_(${place})(\\.jsonl(?:\\.gz|\\.zst)?)$`)

export const nameOf = ({ compression, first, last }: Segment): string => `${first}_${last}${endings[compression]}`

/** What a name says; `undefined` for what is no full segment. */
export const parseName = (name: string): Segment | undefined => {
  const [, first, last, ending] = form.exec(name) ?? []
  if (first === undefined || last === undefined) return undefined
  const compression = ending === endings.gzip ? "gzip" : ending === endings.zstd ? "zstd" : "none"
  return { first, last, compression }
}

/** Full segments among names, in order; of one that is there twice, plain and compressed, the plain one. */
export const segmentsOf = (names: ReadonlyArray<string>): ReadonlyArray<Segment> => {
  const found = new Map<string, Segment>()
  for (const name of names) {
    const segment = parseName(name)
    if (segment === undefined) continue
    const key = `${segment.first}_${segment.last}`
    if (segment.compression === "none" || !found.has(key)) found.set(key, segment)
  }
  return [...found.entries()].sort(([left], [right]) => (left < right ? -1 : 1)).map(([, segment]) => segment)
}

/** The segment that a writer appends to; another writer's, or one that was being taken over. */
export const activeName = (epoch: string): string => `active-${epoch}.jsonl`
export const claimedName = (epoch: string): string => `claimed-${epoch}-${crypto.randomUUID()}.jsonl`
export const isOpenName = (name: string): boolean => /^(?:active|claimed)-.*\.jsonl$/.test(name)
