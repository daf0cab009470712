/**
 * Names that want to be more than names: 10,000 of them, made of what has broken somebody's quoting before. Whatever we
 * build of one is read back by a lexer that shares nothing with us, and must hold that name and no other token.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Lsn from "../../src/Lsn.ts"
import {
  createReplicationSlotCommand,
  dropReplicationSlotCommand,
  objectName,
  publicationNames,
  quoteIdentifier,
  quoteLiteral,
  slotName,
  startReplicationCommand
} from "../../src/protocol/ReplicationCommand.ts"
import { Random } from "../support/Random.ts"

type Token = readonly [kind: "word" | "identifier" | "literal" | "mark", text: string]

/** What `E'…'` means by a backslash and the letter after it. */
const escapes: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }

/**
 * SQL as scan.l reads it, a character at a time: comments, dollar quotes and escape strings included, so that what breaks
 * out of its quotes shows as something else. With `isReplication` as repl_scanner.l does, which knows none of these.
 */
const lex = (sql: string, isReplication: boolean): ReadonlyArray<Token> => {
  const tokens: Array<Token> = []
  let at = 0
  const quoted = (quote: string, hasEscapes: boolean): string => {
    let text = ""
    for (at += 1; ; at += 1) {
      const character = sql[at]
      if (character === undefined) throw new Error(`no closing ${quote}`)
      if (character === quote) {
        if (sql[at + 1] !== quote) break
        at += 1
      } else if (character === "\\" && hasEscapes) {
        at += 1
        const escaped = sql[at] ?? ""
        text += escapes[escaped] ?? escaped
        continue
      }
      text += character
    }
    at += 1
    return text
  }
  while (at < sql.length) {
    const character = sql[at]!
    const rest = sql.slice(at)
    if (/\s/.test(character)) at += 1
    else if (character === '"') tokens.push(["identifier", quoted('"', false)])
    else if (character === "'") tokens.push(["literal", quoted("'", false)])
    else if (!isReplication && /^e'/i.test(rest)) {
      at += 1
      tokens.push(["literal", quoted("'", true)])
    } else if (!isReplication && (rest.startsWith("--") || rest.startsWith("/*") || /^\$\w*\$/.test(rest))) {
      throw new Error(`a comment or a dollar quote at ${at}`)
    } else {
      const word = /^[A-Za-z0-9_/]+/.exec(rest)?.[0]
      tokens.push(word === undefined ? ["mark", character] : ["word", word])
      at += (word ?? character).length
    }
  }
  return tokens
}

const words = (text: string): ReadonlyArray<Token> => lex(text, true)

const pieces = [
  ...['"', '""', "'", "''", "\\", "\\\\", "\\'", '\\"', ";", "--", "/*", "*/", "$$", "$a$", "E'", "e'", "U&'", "\\x27"],
  ...["(", ")", ",", ".", " ", "\t", "\n", "\r", "\f", "\v", "\b", "\x1b[2J", "\x7f", "\u0000", "\u2028", "\uFEFF"],
  ...["\u00A0", "\u202E", "é", "e\u0301", "ı", "İ", "ß", "表", "😀", "\uD83D", "\uDE00", "％", "＇", "＂", "ʼ"],
  ...["DROP TABLE t", "SLOT", "LOGICAL", "a", "Z", "0", "_", "%s", "%", ":", "@", "#", "{}", "<", "x".repeat(62)],
  "y".repeat(10_000)
]

const hostileNames: ReadonlyArray<string> = (() => {
  const random = new Random(20_260_801)
  const name = (): string => Array.from({ length: 1 + random.below(8) }, () => random.pick(pieces)).join("")
  return Array.from({ length: 10_000 }, name)
})()

/** As the server would hold it: at most 63 bytes, nothing that cannot be sent. */
const isName = (name: string): boolean =>
  !name.includes("\0") && name.isWellFormed() && Buffer.byteLength(name) <= 63 && name !== ""

const isText = (text: string): boolean => !text.includes("\0") && text.isWellFormed()

describe("10,000 hostile names", () => {
  it("[X6] are of every kind: names, too long ones, and such as cannot be sent", () => {
    assert.isAbove(hostileNames.filter(isName).length, 3000)
    assert.isAbove(hostileNames.filter((name) => Buffer.byteLength(name) > 63).length, 1000)
    assert.isAbove(hostileNames.filter((name) => !isText(name)).length, 1000)
  })

  it("[X6] stay one identifier, and that one, in SQL and in a replication command", () => {
    for (const name of hostileNames.filter(isText)) {
      assert.deepStrictEqual(lex(`SELECT ${quoteIdentifier(name)} FROM t`, false), [
        ["word", "SELECT"],
        ["identifier", name],
        ["word", "FROM"],
        ["word", "t"]
      ])
    }
  })

  it("[X6] stay one literal, and that one, in SQL", () => {
    for (const name of hostileNames.filter(isText)) {
      assert.deepStrictEqual(lex(`SELECT f(${quoteLiteral(name)}, 1)`, false), [
        ["word", "SELECT"],
        ["word", "f"],
        ["mark", "("],
        ["literal", name],
        ["mark", ","],
        ["word", "1"],
        ["mark", ")"]
      ])
    }
  })

  it("[X6] are refused as slots, all that are not lower-case letters, digits and underscores", () => {
    for (const name of hostileNames) {
      const isSlot = Buffer.byteLength(name) <= 63 && [...name].every((character) => /[a-z0-9_]/.test(character))
      assert.strictEqual(Result.isSuccess(slotName(name)), isSlot, JSON.stringify(name))
      for (const command of [
        createReplicationSlotCommand({ slot: name, plugin: "pgoutput" }, 180_004),
        dropReplicationSlotCommand({ slot: name }),
        startReplicationCommand({ slot: name, startLsn: Lsn.zero, options: [] })
      ]) {
        assert.strictEqual(Result.isSuccess(command), isSlot)
      }
    }
  })

  it("[X6] stay one plugin name, or are refused", () => {
    for (const name of hostileNames) {
      const command = createReplicationSlotCommand({ slot: "s", plugin: name }, 180_004)
      if (!isName(name)) assert.isTrue(Result.isFailure(command), JSON.stringify(name))
      else {
        assert.deepStrictEqual(words(Result.getOrThrow(command)), [
          ["word", "CREATE_REPLICATION_SLOT"],
          ["identifier", "s"],
          ["word", "LOGICAL"],
          ["identifier", name],
          ["mark", "("],
          ["word", "SNAPSHOT"],
          ["literal", "nothing"],
          ["mark", ")"]
        ])
      }
    }
  })

  it("[X6] stay one option with one value, or are refused", () => {
    for (const [index, name] of hostileNames.entries()) {
      const value = hostileNames[(index + 1) % hostileNames.length]!
      const command = startReplicationCommand({ slot: "s", startLsn: Lsn.zero, options: [[name, value]] })
      if (!isName(name) || !isText(value)) assert.isTrue(Result.isFailure(command), JSON.stringify([name, value]))
      else {
        assert.deepStrictEqual(words(Result.getOrThrow(command)), [
          ["word", "START_REPLICATION"],
          ["word", "SLOT"],
          ["identifier", "s"],
          ["word", "LOGICAL"],
          ["word", "0/0"],
          ["mark", "("],
          ["identifier", name],
          ["literal", value],
          ["mark", ")"]
        ])
      }
    }
  })

  it("[X6] stay one publication each, quoted within the quotes of the option, or are refused", () => {
    for (let index = 0; index + 1 < hostileNames.length; index += 2) {
      const names = [hostileNames[index]!, hostileNames[index + 1]!] as const
      const value = publicationNames(names)
      assert.strictEqual(Result.isSuccess(value), names.every(isName), JSON.stringify(names))
      if (Result.isFailure(value)) continue
      const command = startReplicationCommand({
        slot: "s",
        startLsn: Lsn.zero,
        options: [["publication_names", value.success]]
      })
      const [list] = words(Result.getOrThrow(command)).filter(([kind]) => kind === "literal")
      assert.deepStrictEqual(words(list![1]), [
        ["identifier", names[0]],
        ["mark", ","],
        ["identifier", names[1]]
      ])
    }
  })

  it("[X6] are refused by name of the option, without being repeated", () => {
    for (const name of hostileNames.filter((name) => name.length > 3 && !isName(name))) {
      const refused = objectName("publications", name)
      assert.isTrue(Result.isFailure(refused))
      if (Result.isFailure(refused)) assert.notInclude(refused.failure.message, name)
    }
  })
})
