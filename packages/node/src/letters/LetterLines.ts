/**
 * What is in a file of dead letters: a line for each thing that happened to one, the last of which counts. Pure.
 *
 * `{"put":…,"change":…}` is a letter and its change; `{"update":…}` is all but the change; `{"gone":[…]}` names letters that are no
 * more. What a write left that was cut off stands behind the last line break, and counts for nothing.
 */
import type { DeadLetters } from "@replicant/core"

/** Where the line of a letter begins in the file, and how long it is, with its line break: in bytes. */
export interface Place {
  readonly at: number
  readonly length: number
}

/** A letter, and where its change stands. */
export interface Kept extends Place {
  readonly letter: DeadLetters.Letter
}

/** What a file says. */
export interface Content {
  readonly letters: ReadonlyMap<string, Kept>
  /** Up to its last line break. */
  readonly length: number
  readonly lines: number
}

type Name = readonly [slot: string, id: string]

type Line =
  | { readonly put: DeadLetters.Letter; readonly change: unknown }
  | { readonly update: DeadLetters.Letter }
  | { readonly gone: ReadonlyArray<Name> }

export const nameOf = ({ id, slot }: DeadLetters.LetterName): string => JSON.stringify([slot, id])

/** `change` is JSON already. */
export const putLine = (letter: DeadLetters.Letter, change: string): string =>
  `{"put":${JSON.stringify(letter)},"change":${change}}\n`

export const updateLine = (letter: DeadLetters.Letter): string => `${JSON.stringify({ update: letter })}\n`

export const goneLine = (names: ReadonlyArray<DeadLetters.LetterName>): string =>
  `${JSON.stringify({ gone: names.map(({ id, slot }) => [slot, id]) })}\n`

/** The change of a line that puts a letter, as JSON. */
export const changeOf = (line: string): string =>
  JSON.stringify((JSON.parse(line) as { readonly change: unknown }).change)

const isLetter = (value: unknown): value is DeadLetters.Letter => {
  const { attempts, cause, id, keys, slot, state } = (value ?? {}) as Partial<DeadLetters.Letter>
  return (
    typeof slot === "string" &&
    typeof id === "string" &&
    typeof state === "string" &&
    typeof attempts === "number" &&
    typeof cause?.tag === "string" &&
    Array.isArray(keys)
  )
}

/** A letter as JSON has it: what is absent there is `undefined`. */
const letterOf = (letter: DeadLetters.Letter): DeadLetters.Letter => ({ ...letter, table: letter.table ?? undefined })

const parse = (text: string): Line | undefined => {
  try {
    const line = JSON.parse(text) as Partial<Record<"put" | "update" | "gone", unknown>> | null
    const isOne = isLetter(line?.put) || isLetter(line?.update) || Array.isArray(line?.gone)
    return isOne ? (line as unknown as Line) : undefined
  } catch {
    return undefined
  }
}

/** What the bytes of a file say; the number of a line that is none of ours, from 1. */
export const read = (bytes: Buffer): Content | { readonly broken: number } => {
  const letters = new Map<string, Kept>()
  let [at, lines] = [0, 0]
  for (let end = bytes.indexOf(0x0a); end !== -1; end = bytes.indexOf(0x0a, at)) {
    const line = parse(bytes.toString("utf8", at, end))
    lines++
    if (line === undefined) return { broken: lines }
    if ("put" in line) {
      letters.set(nameOf(line.put), { letter: letterOf(line.put), at, length: end + 1 - at })
    } else if ("update" in line) {
      const before = letters.get(nameOf(line.update))
      if (before !== undefined) letters.set(nameOf(line.update), { ...before, letter: letterOf(line.update) })
    } else {
      for (const [slot, id] of line.gone) letters.delete(nameOf({ slot, id }))
    }
    at = end + 1
  }
  return { letters, length: at, lines }
}

/** What somebody has decided while a program parks in the file: a file of its own, beside it. */
export interface Request {
  readonly decision: "retry" | "drop"
  readonly names: ReadonlyArray<DeadLetters.LetterName>
}

export const requestText = ({ decision, names }: Request): string =>
  `${JSON.stringify({ decision, names: names.map(({ id, slot }) => [slot, id]) })}\n`

export const readRequest = (text: string): Request | undefined => {
  try {
    const { decision, names } = JSON.parse(text) as { readonly decision?: unknown; readonly names?: unknown }
    if ((decision !== "retry" && decision !== "drop") || !Array.isArray(names)) return undefined
    return { decision, names: (names as ReadonlyArray<Name>).map(([slot, id]) => ({ slot, id })) }
  } catch {
    return undefined
  }
}
