/**
 * How many columns of a terminal a text takes, and text made to fit some: names of databases and roles may be in any script, and
 * some of its glyphs take two columns or none.
 *
 * Node knows: it has to, to place the cursor behind a prompt. Its answer is taken from there, and no package is needed for it.
 * Source: https://nodejs.org/api/readline.html#rlgetcursorpos
 */
import * as Readline from "node:readline"
import { PassThrough } from "node:stream"

let prompt: Readline.Interface | undefined

const ascii = /^[\x20-\x7e]*$/

/**
 * Columns of a text of one line, without control characters.
 *
 * @example
 * displayWidth("商店") // => 4
 */
export const displayWidth = (text: string): number => {
  if (ascii.test(text)) return text.length
  prompt ??= Readline.createInterface({ input: new PassThrough(), terminal: false })
  prompt.setPrompt(text.normalize())
  return prompt.getCursorPos().cols
}

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/** The text cut to so many columns, between glyphs, with an ellipsis where anything was cut. */
export const cutTo = (text: string, columns: number): string => {
  if (displayWidth(text) <= columns) return text
  if (columns < 1) return ""
  let kept = ""
  let width = 0
  for (const { segment } of graphemes.segment(text)) {
    width += displayWidth(segment)
    if (width > columns - 1) break
    kept += segment
  }
  return `${kept}…`
}

/** The text with spaces up to so many columns; as it is where it takes more. */
export const padTo = (text: string, columns: number, align: "left" | "right" = "left"): string => {
  const spaces = " ".repeat(Math.max(0, columns - displayWidth(text)))
  return align === "right" ? spaces + text : text + spaces
}

const bars = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"] as const

/**
 * Values as bars, from zero to the greatest of them; the last so many. What is not known is a gap.
 *
 * @example
 * sparkline([0, 1, 2, 4], 3) // => "▃▅█"
 */
export const sparkline = (values: ReadonlyArray<number | undefined>, columns: number): string => {
  const shown = columns < 1 ? [] : values.slice(-columns)
  const greatest = Math.max(0, ...shown.map((value) => value ?? 0))
  return shown
    .map((value) => {
      if (value === undefined) return " "
      return greatest === 0 ? bars[0] : bars[Math.round((value / greatest) * (bars.length - 1))]
    })
    .join("")
}
