/** Runs wal2json's messages through the plugin's decoder, as a copy stream would. Not a test. */
import type { Change, TransactionChange } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type OutputPlugin } from "../../src/change/OutputPlugin.ts"
import type { Relation } from "../../src/change/Relation.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import { goldens, type Scenario } from "../fixtures/wal2json.ts"

export type Format = 1 | 2

const utf8 = new TextEncoder()

/** A golden's bytes: text, or `hex:` and bytes that are none. */
export const bytesOf = (message: string): Uint8Array =>
  message.startsWith("hex:")
    ? Uint8Array.from(message.slice(4).match(/../g) ?? [], (byte) => Number.parseInt(byte, 16))
    : utf8.encode(message)

/** A decoder that takes whole messages and gives what each appended. */
export const makeDecode = (plugin: OutputPlugin | Wal2Json.Wal2JsonOptions = {}) => {
  const { makeDecoder } = "makeDecoder" in plugin ? plugin : Wal2Json.make(plugin)
  const decoder = makeDecoder(portableText)
  const run = new Run()
  const decode = (message: string | Uint8Array): Batch => {
    const batch = new Batch(run)
    const bytes = typeof message === "string" ? bytesOf(message) : message
    // As in a copy stream, where a header stands before the payload and the next frame after it.
    const read = new Uint8Array(bytes.length + 32)
    read.set(bytes, 25)
    decoder.decode(new ByteReader(portableText).reset(read, 25, 25 + bytes.length), batch)
    return batch
  }
  return Object.assign(decode, { decoder })
}

export const decodeAll = (
  messages: ReadonlyArray<string | Uint8Array>,
  plugin: OutputPlugin | Wal2Json.Wal2JsonOptions = {}
): ReadonlyArray<Change> => {
  const decode = makeDecode(plugin)
  return messages.flatMap((message) => decode(message).changes)
}

export const messagesOf = (scenario: Scenario, format: Format): ReadonlyArray<string> =>
  format === 2 ? goldens[scenario].format2 : goldens[scenario].format1

export const optionsOf = (format: Format): Wal2Json.Wal2JsonOptions =>
  format === 2 ? { formatVersion: 2 } : { formatVersion: 1 }

export const changesOf = (
  scenario: Scenario,
  format: Format = 2,
  options: Wal2Json.Wal2JsonOptions = optionsOf(format)
): ReadonlyArray<Change> => decodeAll(messagesOf(scenario, format), options)

/** What changes say, short: no transaction frames, and relations by their columns' names, keys with a star. */
export const brief = (changes: ReadonlyArray<Change>): ReadonlyArray<unknown> =>
  changes.flatMap((change) => (change._tag in frames ? [] : [briefly(change as TransactionChange)]))

/** What stands around changes; the last four never come of wal2json. */
const frames: Record<Exclude<Change["_tag"], TransactionChange["_tag"]>, true> = {
  Begin: true,
  Commit: true,
  Prepare: true,
  CommitPrepared: true,
  RollbackPrepared: true,
  Gap: true
}

const briefly = (change: TransactionChange): unknown => {
  switch (change._tag) {
    case "Insert":
      return ["I", change.row]
    case "Update":
      return ["U", change.row, ...(change.unchanged.length > 0 ? [change.unchanged] : []), ...old(change.old)]
    case "Delete":
      return ["D", ...old(change.old)]
    case "Truncate":
      return ["T", change.relations.map((relation) => relation.name)]
    case "RelationChanged":
      return ["R", columnsOf(change.before), columnsOf(change.relation)]
    case "Message":
      return ["M", change.transactional, change.prefix, new TextDecoder().decode(change.content)]
    case "Origin":
      return ["O", change.name]
  }
}

const old = (row: { readonly _tag: string; readonly row: unknown } | undefined): ReadonlyArray<unknown> =>
  row === undefined ? [] : [{ [row._tag]: row.row }]

export const columnsOf = (relation: Relation): string =>
  relation.columns.map((column) => (column.isKey ? `${column.name}*` : column.name)).join(" ")

export const relationsOf = (changes: ReadonlyArray<Change>): ReadonlyArray<Relation> =>
  changes.flatMap((change) => ("relation" in change ? [change.relation] : []))
