/** Dead letters as they are printed: for people and as JSON, without values of rows but where a change is asked for. */
import { DeadLetters, type Snapshot } from "@replicant/core"
import { ValueJson } from "@replicant/core/sink"
import * as Result from "effect/Result"
import { encodeChange } from "./ChangeJson.ts"
import { plainText } from "./PlainText.ts"

const time = (millis: number): string => new Date(millis).toISOString()

const relationOf = ({ table }: DeadLetters.Letter): readonly [schema: string, name: string] | undefined =>
  table === undefined ? undefined : (JSON.parse(table) as readonly [string, string])

/** What columns of a table say. */
export const summary = (letter: DeadLetters.Letter) => ({
  table: relationOf(letter)?.join("."),
  firstAt: time(letter.firstAt),
  lastAt: time(letter.lastAt)
})

/** A letter as `list --json` has it: no key, and of what it failed of the tag alone. */
export const toJson = (letter: DeadLetters.Letter) => {
  const { attempts, cause, id, kind, slot, state } = letter
  const [schema = null, table = null] = relationOf(letter) ?? []
  const { firstAt, lastAt } = summary(letter)
  return { id, slot, state, kind, schema, table, cause: cause.tag, attempts, firstAt, lastAt }
}

interface Element {
  readonly _tag?: string
  readonly change?: Element
  readonly row?: Element
}

/** The change as the database told it, without a context or a Schema around it. */
const bare = (element: Element): Element => {
  if (element._tag === undefined && element.change !== undefined) return bare(element.change)
  if (element._tag === "Untyped") return element.change ?? element
  return element._tag === "UntypedSnapshotRow" ? (element.row ?? element) : element
}

/** A change as `replicant stream` prints it; one of a store of somebody's own as that kept it. */
const changeText = (change: unknown): string => {
  try {
    const text = encodeChange(bare(change as Element) as Snapshot.ChangeAfterSnapshot)
    if (typeof text === "string") return text
  } catch {
    // Of a kind that a stream never delivers.
  }
  return Result.getOrElse(DeadLetters.encode(change), () => "null")
}

/** One letter, whole. */
export const letterLines = (letter: DeadLetters.DeadLetter, format: "text" | "json"): string => {
  const change = changeText(letter.change)
  if (format === "json") {
    const { cause: _, ...head } = toJson(letter)
    const members = JSON.stringify({ ...head, keys: letter.keys })
    const cause = `{"tag":${ValueJson.quote(letter.cause.tag)},"message":${ValueJson.quote(letter.cause.message)}}`
    return `${members.slice(0, -1)},"cause":${cause},"change":${change}}\n`
  }
  const { attempts, cause, id, kind, slot, state } = letter
  const { firstAt, lastAt, table } = summary(letter)
  const failed = cause.message === "" ? cause.tag : `${cause.tag}: ${cause.message}`
  const lines: ReadonlyArray<readonly [string, string]> = [
    ["id", id],
    ["slot", slot],
    ["state", state],
    ["change", table === undefined ? kind : `${kind} of ${table}`],
    ["failed of", failed.replaceAll(/\s*\n\s*/g, " ")],
    ["attempts", `${attempts}`],
    ["first", firstAt],
    ["last", lastAt]
  ]
  return `${lines.map(([name, value]) => `${name.padEnd(10)}${plainText(value)}\n`).join("")}${change}\n`
}
