/**
 * START_REPLICATION as the test's server reads it: the command's text, and what it refuses of it.
 *
 * It speaks pgoutput's text format, and streams no transaction in progress: a server need not, when all are small.
 */
import * as Lsn from "../Lsn.ts"
import type { ServerMessage } from "../ReplicationError.ts"
import { refusal, slotActive, slotMissing } from "./TestCatalog.ts"
import type { Subscription } from "./TestEncoder.ts"
import type { TestServer, TestSlot } from "./TestServer.ts"

/** What was understood. */
export interface Started extends Subscription {
  readonly slot: TestSlot
  readonly startLsn: Lsn.Lsn
}

const command = /^START_REPLICATION SLOT "([^"]+)" LOGICAL ([0-9A-Fa-f]+\/[0-9A-Fa-f]+)(?: \((.*)\))?$/s
const option = /"((?:[^"]|"")*)" '((?:[^']|'')*)'/g
const identifier = /"((?:[^"]|"")*)"/g

/** Options of pgoutput, by the version that brought them. */
const known = new Map([
  ["proto_version", 100_000],
  ["publication_names", 100_000],
  ["binary", 140_000],
  ["messages", 140_000],
  ["streaming", 140_000],
  ["two_phase", 150_000],
  ["origin", 160_000]
])

const isOn = (value: string | undefined): boolean => value === "true" || value === "on" || value === "1"

const optionsRefusal = (server: TestServer, options: ReadonlyMap<string, string>): ServerMessage | undefined => {
  const unknown = [...options.keys()].find(
    (name) => (known.get(name) ?? Number.POSITIVE_INFINITY) > server.serverVersion
  )
  if (unknown !== undefined) return refusal("XX000", `unrecognized pgoutput option: ${unknown}`)
  const version = Number(options.get("proto_version"))
  if (!(version >= 1)) return refusal("22023", "proto_version parameter missing")
  if (version > 4) return refusal("0A000", `client sent proto_version=${version} but server only supports protocol 4`)
  if (!options.has("publication_names")) return refusal("22023", "publication_names parameter missing")
  if (isOn(options.get("binary"))) return refusal("0A000", "the test's server sends values as text only")
  return undefined
}

/** The command understood, or why it is refused. Takes nothing: the slot is as it was. */
export const readStart = (server: TestServer, text: string): Started | ServerMessage => {
  const match = command.exec(text)
  if (match === null) return refusal("42601", "syntax error")
  const [, name = "", position = "", list = ""] = match
  const slot = server.slots.get(name)
  if (slot === undefined) return slotMissing(name)
  if (slot.activePid !== undefined) return slotActive(slot)
  if (slot.invalidationReason !== undefined) {
    return {
      ...refusal("55000", `can no longer access replication slot "${name}"`),
      detail: `This replication slot has been invalidated due to "${slot.invalidationReason}".`
    }
  }
  const options = new Map(
    [...list.matchAll(option)].map(([, key, value]) => [key!.replaceAll('""', '"'), value!.replaceAll("''", "'")])
  )
  const refused = optionsRefusal(server, options)
  if (refused !== undefined) return refused
  return {
    slot,
    startLsn: Lsn.fromString(position) ?? Lsn.zero,
    publications: [...options.get("publication_names")!.matchAll(identifier)].map(([, quoted]) =>
      quoted!.replaceAll('""', '"')
    ),
    hasMessages: isOn(options.get("messages"))
  }
}
