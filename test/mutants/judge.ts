/**
 * What became of the mutants of a module: how many were noticed, and whether each that was not is explained. A mutant is known
 * by the line it is in, as it is and as it becomes, and not by a number, so that an explanation survives what is written
 * elsewhere.
 */

/** A place as Stryker tells it: lines and columns from 1. */
interface Place {
  readonly line: number
  readonly column: number
}

/** A small mistake, and what became of it. */
export interface Mutant {
  readonly status: string
  readonly replacement: string
  readonly location: { readonly start: Place; readonly end: Place }
}

/** A mistake that no test notices, and why none could, or need. */
export interface Survivor {
  readonly file: string
  /** The line as it is. */
  readonly line: string
  /** The same line with the mistake in it; several, where one reason does for all. */
  readonly becomes: ReadonlyArray<string>
  readonly why: string
}

export interface Verdict {
  readonly summary: string
  readonly problems: ReadonlyArray<string>
}

/** Per cent of the mistakes that must be noticed. */
const leastScore = 90

/** As lines are compared: a formatter may have moved them. */
export const collapse = (text: string): string => text.replaceAll(/\s+/g, " ").trim()

const pair = (line: string, mistake: string): string => `    ${line}\n    ${mistake}`

/** The line it begins in, and what becomes of it. What spans lines takes the rest of its last line along. */
const describe = (source: string, { location: { end, start }, replacement }: Mutant): string => {
  const lines = source.split("\n")
  const [first, last] = [lines[start.line - 1]!, lines[end.line - 1]!]
  const mistake = first.slice(0, start.column - 1) + replacement + last.slice(end.column - 1)
  return pair(collapse(first), collapse(mistake))
}

const isNoticed = ({ status }: Mutant): boolean => status === "Killed" || status === "Timeout"
const isUnnoticed = ({ status }: Mutant): boolean => status === "Survived" || status === "NoCoverage"

/** Of one module. */
export const judge = (
  file: string,
  source: string,
  mutants: ReadonlyArray<Mutant>,
  survivors: ReadonlyArray<Survivor>
): Verdict => {
  const noticed = mutants.filter(isNoticed).length
  const unnoticed = mutants
    .filter(isUnnoticed)
    .map((mutant) => ({ line: mutant.location.start.line, text: describe(source, mutant) }))
  const explained = survivors
    .filter((survivor) => survivor.file === file)
    .flatMap(({ becomes, line }) => becomes.map((mistake) => pair(line, mistake)))
  // Each explanation is of one: two lines of a module may be alike.
  const unused = [...explained]
  const unexplained = unnoticed.filter(({ text }) => {
    const index = unused.indexOf(text)
    if (index >= 0) unused.splice(index, 1)
    return index < 0
  })
  const tried = noticed + unnoticed.length
  const score = (100 * noticed) / tried
  return {
    summary: `${file}: ${score.toFixed(1)} % (${noticed} of ${tried}), ${explained.length} explained`,
    problems: [
      ...unexplained.map(({ line, text }) => `  ${line}: no test notices that\n${text}`),
      ...unused.map((text) => `  explained in survivors.json, and no survivor:\n${text}`),
      ...(score < leastScore ? [`  fewer than ${leastScore} % are noticed`] : [])
    ]
  }
}
