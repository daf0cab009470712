/**
 * JSON whose numbers stay text. wal2json writes bigint and numeric as bare numbers, and `JSON.parse` would round them.
 *
 * Strict, but for control characters within strings, which it lets pass. Whitespace is not taken: wal2json writes none.
 * A reviver with `context.source` would keep the numbers' text too, at five times the cost, and not on every runtime.
 *
 * Source: https://www.rfc-editor.org/rfc/rfc8259
 */
import { DecodeError } from "../ReplicationError.ts"

/** A JSON value; a number is the text it was written as. */
export type JsonText = string | boolean | null | ReadonlyArray<JsonText> | { readonly [key: string]: JsonText }

/** wal2json nests four deep. A message that goes much deeper is damage, and must not exhaust the stack. */
const maxDepth = 16

const numberPattern = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$/

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

/** Whether `code` may stand in a number: a digit or one of `+ - . E e`. */
const isOfNumber = (code: number): boolean =>
  (code >= 0x30 && code <= 0x39) || code === 0x2d || code === 0x2b || code === 0x2e || code === 0x65 || code === 0x45

class JsonReader {
  private readonly text: string
  private at = 0
  private backslashAt = -1
  private depth = 0

  constructor(text: string) {
    this.text = text
  }

  whole(): JsonText {
    const value = this.value()
    if (this.at !== this.text.length) this.fail("text after the end of the JSON")
    return value
  }

  private fail(problem: string): never {
    throw new DecodeError({ problem, offset: this.at })
  }

  private value(): JsonText {
    switch (this.text.charCodeAt(this.at)) {
      case quote:
        return this.string()
      case openBrace:
        return this.object()
      case openBracket:
        return this.array()
      case 0x74: // t
        return this.word("true", true)
      case 0x66: // f
        return this.word("false", false)
      case 0x6e: // n
        return this.word("null", null)
      default:
        return this.number()
    }
  }

  private word<A>(word: string, value: A): A {
    if (!this.text.startsWith(word, this.at)) this.fail("no JSON value where one must be")
    this.at += word.length
    return value
  }

  private number(): string {
    const start = this.at
    while (isOfNumber(this.text.charCodeAt(this.at))) this.at++
    const digits = this.text.substring(start, this.at)
    return numberPattern.test(digits) ? digits : this.fail("no JSON value where one must be")
  }

  private string(): string {
    const { text } = this
    const start = this.at + 1
    let end = text.indexOf('"', start)
    if (this.nextBackslash(start) > end && end > 0) {
      this.at = end + 1
      return text.substring(start, end)
    }
    while (end > 0 && this.isEscaped(start, end)) end = text.indexOf('"', end + 1)
    if (end < 0) this.fail("a string without its end")
    this.at = end + 1
    return this.unescape(text.substring(start - 1, end + 1))
  }

  /** Where the next backslash at or after `from` is. Most messages have none, and are asked once. */
  private nextBackslash(from: number): number {
    if (this.backslashAt < from) {
      const found = this.text.indexOf("\\", from)
      this.backslashAt = found < 0 ? this.text.length : found
    }
    return this.backslashAt
  }

  /** Whether the quote at `end` belongs to the string: an odd number of backslashes stands before it. */
  private isEscaped(start: number, end: number): boolean {
    let first = end
    while (first > start && this.text.charCodeAt(first - 1) === backslash) first--
    return (end - first) % 2 === 1
  }

  private unescape(literal: string): string {
    try {
      return JSON.parse(literal) as string
    } catch {
      // What was thrown quotes the text, which may be a row's value.
      return this.fail("a string with a broken escape before here")
    }
  }

  private array(): ReadonlyArray<JsonText> {
    const values: Array<JsonText> = []
    this.enter()
    if (this.text.charCodeAt(this.at) === closeBracket) {
      this.leave()
      return values
    }
    while (true) {
      values.push(this.value())
      if (this.endsAfter(closeBracket)) return values
    }
  }

  private object(): { readonly [key: string]: JsonText } {
    const members: Record<string, JsonText> = {}
    this.enter()
    if (this.text.charCodeAt(this.at) === closeBrace) {
      this.leave()
      return members
    }
    while (true) {
      if (this.text.charCodeAt(this.at) !== quote) this.fail("no name where a member must begin")
      const name = this.string()
      // Names of members are wal2json's own words; tables and columns are values. This one would set the prototype.
      if (name === "__proto__") this.fail("a member that wal2json does not write")
      if (this.text.charCodeAt(this.at) !== colon) this.fail("no colon after a member's name")
      this.at++
      members[name] = this.value()
      if (this.endsAfter(closeBrace)) return members
    }
  }

  /** Steps over what follows an item: true for `close`, false for a comma. */
  private endsAfter(close: number): boolean {
    const code = this.text.charCodeAt(this.at)
    if (code === close) {
      this.leave()
      return true
    }
    if (code !== comma) this.fail("neither a comma nor an end after a value")
    this.at++
    return false
  }

  private enter(): void {
    this.at++
    if (++this.depth > maxDepth) this.fail(`JSON nested more than ${maxDepth} deep`)
  }

  private leave(): void {
    this.at++
    this.depth--
  }
}

/**
 * Reads one JSON value, and nothing after it. Throws `DecodeError`, whose offset counts UTF-16 units of `text`.
 *
 * @example
 * parseJsonText('{"value":9007199254740993}') // => { value: "9007199254740993" }
 */
export const parseJsonText = (text: string): JsonText => new JsonReader(text).whole()
