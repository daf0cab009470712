import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Lsn from "../../src/Lsn.ts"
import {
  alterReplicationSlotCommand,
  type CommandOptions,
  createReplicationSlotCommand,
  dropReplicationSlotCommand,
  identifySystemCommand,
  objectName,
  publicationNames,
  quoteIdentifier,
  quoteLiteral,
  slotName,
  startReplicationCommand
} from "../../src/protocol/ReplicationCommand.ts"
import { InvalidOption, UnsupportedByServer } from "../../src/ReplicationError.ts"

interface Token {
  readonly kind: "identifier" | "literal" | "word" | "lsn" | "punctuation"
  readonly text: string
}

/**
 * Reads a command as repl_scanner.l does: quotes are doubled, a backslash is a character like any other. Fails on
 * anything that is not wholly tokens.
 */
const scan = (command: string): ReadonlyArray<Token> => {
  const pattern = /\s*(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|([0-9A-F]+\/[0-9A-F]+)|([A-Z_]+|true|false)|([(),]))/gy
  const tokens: Array<Token> = []
  while (pattern.lastIndex < command.length) {
    const at = pattern.lastIndex
    const match = pattern.exec(command)
    if (match === null) return assert.fail(`not a token at ${at} of ${command}`)
    const [, identifier, literal, lsn, word, punctuation] = match
    if (identifier !== undefined) tokens.push({ kind: "identifier", text: identifier.replaceAll('""', '"') })
    else if (literal !== undefined) tokens.push({ kind: "literal", text: literal.replaceAll("''", "'") })
    else if (lsn !== undefined) tokens.push({ kind: "lsn", text: lsn })
    else if (word !== undefined) tokens.push({ kind: "word", text: word })
    else tokens.push({ kind: "punctuation", text: punctuation! })
  }
  return tokens
}

/** The names in a value of `publication_names`, as SplitIdentifierString reads it. */
const splitIdentifiers = (value: string): ReadonlyArray<string> => {
  const tokens = scan(value)
  for (const [index, token] of tokens.entries()) {
    assert.strictEqual(token.kind, index % 2 === 0 ? "identifier" : "punctuation")
    if (index % 2 === 1) assert.strictEqual(token.text, ",")
  }
  return tokens.filter(({ kind }) => kind === "identifier").map(({ text }) => text)
}

/** The options of a START_REPLICATION, read back. */
const optionsOf = (command: string): CommandOptions => {
  const tokens = scan(command)
  assert.deepStrictEqual(
    tokens.slice(0, 2).map(({ text }) => text),
    ["START_REPLICATION", "SLOT"]
  )
  assert.strictEqual(tokens[2]!.kind, "identifier")
  assert.strictEqual(tokens[3]!.text, "LOGICAL")
  assert.strictEqual(tokens[4]!.kind, "lsn")
  if (tokens.length === 5) return []
  assert.strictEqual(tokens[5]!.text, "(")
  assert.strictEqual(tokens.at(-1)!.text, ")")
  const list = tokens.slice(6, -1)
  const options: Array<readonly [string, string]> = []
  for (let index = 0; index < list.length; index += 3) {
    assert.strictEqual(list[index]!.kind, "identifier")
    assert.strictEqual(list[index + 1]!.kind, "literal")
    if (index + 2 < list.length) assert.deepStrictEqual(list[index + 2], { kind: "punctuation", text: "," })
    options.push([list[index]!.text, list[index + 1]!.text])
  }
  return options
}

const start = (options: CommandOptions, slot = "orders") =>
  startReplicationCommand({ slot, startLsn: Lsn.zero, options })

const refusal = <A>(result: Result.Result<A, InvalidOption | UnsupportedByServer>) =>
  Result.isFailure(result) ? result.failure : assert.fail(`expected a refusal, got ${JSON.stringify(result.success)}`)

const assertInvalid = <A>(result: Result.Result<A, InvalidOption | UnsupportedByServer>, option: string): void => {
  const error = refusal(result)
  assert.instanceOf(error, InvalidOption)
  assert.strictEqual(error.option, option)
}

/** Pieces that have broken somebody's quoting before. */
const pieces = [
  '"',
  "'",
  '""',
  "''",
  "\\",
  "\\'",
  ";",
  "--",
  "/*",
  "*/",
  "(",
  ")",
  ",",
  " ",
  "\t",
  "\n",
  "\r",
  "$$",
  "E'",
  "DROP",
  "a",
  "Z",
  "0",
  "é",
  "😀",
  "\uFEFF",
  "\u202E",
  "ı",
  "\0",
  "\uD800",
  "x".repeat(30)
] as const
const hostile = Arbitrary.map(Arbitrary.array(Arbitrary.schema(Schema.Literals(pieces)), { maxLength: 12 }), (parts) =>
  parts.join("")
)

const isSendable = (text: string): boolean => !text.includes("\0") && text.isWellFormed()
const isName = (text: string): boolean => isSendable(text) && text !== "" && Buffer.byteLength(text) <= 63

const nasty: ReadonlyArray<string> = [
  "orders",
  "MyPub",
  'a"b',
  '"',
  '""""',
  "a'b",
  "'; DROP TABLE orders; --",
  '") --',
  "\\",
  "\\'",
  "a,b",
  "a b",
  " ",
  "line\nfeed",
  "tab\there",
  "Grüße",
  "😀",
  "\uFEFFmark",
  "select",
  "x".repeat(63),
  "é".repeat(31)
]

describe("slotName", () => {
  it("[S5] takes 1 to 63 of lower-case letters, digits and underscores", () => {
    for (const name of ["a", "0", "_", "orders_2", "x".repeat(63)]) {
      assert.deepStrictEqual(slotName(name), Result.succeed(name))
    }
  })

  it.each([
    "",
    "x".repeat(64),
    "Orders",
    "a-b",
    "a b",
    "a.b",
    'a"',
    "a'",
    "a;",
    "a\n",
    "\na",
    "a\0",
    "é",
    "ı",
    "ａ",
    "x".repeat(10_240)
  ])("refuses %j", (name) => {
    assertInvalid(slotName(name), "slot")
  })

  it("refuses the name that PostgreSQL keeps for itself", () => {
    assertInvalid(slotName("pg_conflict_detection"), "slot")
  })

  it("is asked for by every command", () => {
    for (const slot of ["", "Bad Name", 'x" LOGICAL "y', "x".repeat(64)]) {
      assertInvalid(createReplicationSlotCommand({ slot, plugin: "pgoutput" }, 180_004), "slot")
      assertInvalid(dropReplicationSlotCommand({ slot }), "slot")
      assertInvalid(alterReplicationSlotCommand({ slot, failover: true }, 180_004), "slot")
      assertInvalid(start([], slot), "slot")
    }
  })
})

describe("objectName", () => {
  it.each(nasty)("takes %j as it is", (name) => {
    assert.deepStrictEqual(objectName("publication", name), Result.succeed(name))
  })

  it("refuses what PostgreSQL would cut short, and says how long it is", () => {
    assertInvalid(objectName("publication", "x".repeat(64)), "publication")
    assertInvalid(objectName("publication", "x".repeat(10_240)), "publication")
    // 32 characters, 64 bytes: bytes are what PostgreSQL counts.
    assert.include(refusal(objectName("publication", "é".repeat(32))).message, "64 bytes")
  })

  it("refuses the empty name, a zero byte, and half a surrogate pair, which would be sent as another name", () => {
    for (const name of ["", "\0", "a\0b", "\uD800", "a\uDC00b"]) assertInvalid(objectName("plugin", name), "plugin")
  })
})

describe("quoteIdentifier", () => {
  it("doubles the quotes of the example", () => {
    assert.strictEqual(quoteIdentifier('say "hi"'), '"say ""hi"""')
  })

  it.prop(
    "is read back as the same name, all of it and nothing else",
    { hostile },
    ({ hostile }) => {
      assert.deepStrictEqual(scan(quoteIdentifier(hostile)), [{ kind: "identifier", text: hostile }])
    },
    { arbitrary: { runs: 10_000 } }
  )
})

describe("quoteLiteral", () => {
  it("doubles single quotes", () => {
    assert.strictEqual(quoteLiteral("it's"), "'it''s'")
    assert.strictEqual(quoteLiteral(""), "''")
  })

  it("escapes backslashes so that no setting of the session changes their meaning", () => {
    assert.strictEqual(quoteLiteral("a\\b"), " E'a\\\\b'")
    assert.strictEqual(quoteLiteral("\\'; DROP TABLE t; --"), " E'\\\\''; DROP TABLE t; --'")
  })

  /** Reads a literal as SQL does, with `standard_conforming_strings` on or off. */
  const readSql = (sql: string, standardConforming: boolean): string => {
    const match = /^\s*(E?)'(.*)'$/su.exec(sql) ?? assert.fail(`not a literal: ${sql}`)
    const hasEscapes = match[1] === "E" || !standardConforming
    const body = match[2]!
    let text = ""
    for (let at = 0; at < body.length; at++) {
      const character = body[at]!
      if (character === "'") {
        assert.strictEqual(body[++at], "'", "a quote that ends the literal early")
      } else if (character === "\\" && hasEscapes) {
        assert.strictEqual(body[++at], "\\", "an escape that was not meant")
      }
      text += character
    }
    return text
  }
  it.prop(
    "is read back as the same text, whatever standard_conforming_strings says",
    { hostile },
    ({ hostile }) => {
      assert.strictEqual(readSql(quoteLiteral(hostile), true), hostile)
      assert.strictEqual(readSql(quoteLiteral(hostile), false), hostile)
    },
    { arbitrary: { runs: 10_000 } }
  )
})

describe("publicationNames", () => {
  it("quotes every name, so that none is folded to lower case", () => {
    assert.deepStrictEqual(publicationNames(["orders", "My Pub"]), Result.succeed('"orders","My Pub"'))
  })

  it("keeps names apart that hold what separates them", () => {
    assert.deepStrictEqual(splitIdentifiers(Result.getOrThrow(publicationNames(nasty))), nasty)
  })

  it("refuses an empty list, which PostgreSQL 18 answers with silence", () => {
    assertInvalid(publicationNames([]), "publications")
  })

  it("refuses the whole list for one bad name", () => {
    for (const name of ["", "\0", "x".repeat(64), "\uD800"]) {
      assertInvalid(publicationNames(["orders", name]), "publications")
    }
  })

  it.prop(
    "is refused, or read back as the same names, through the literal of the command",
    { names: Arbitrary.array(hostile, { maxLength: 4 }) },
    ({ names }) => {
      const result = publicationNames(names)
      assert.strictEqual(Result.isSuccess(result), names.length > 0 && names.every(isName))
      if (Result.isFailure(result)) return
      assert.deepStrictEqual(splitIdentifiers(result.success), names)
      const command = Result.getOrThrow(start([["publication_names", result.success]]))
      assert.deepStrictEqual(splitIdentifiers(optionsOf(command)[0]![1]), names)
    },
    { arbitrary: { runs: 10_000 } }
  )
})

describe("startReplicationCommand", () => {
  it("names slot, position and options", () => {
    const command = startReplicationCommand({
      slot: "orders",
      startLsn: Lsn.fromString("16/B374D848")!,
      options: [
        ["proto_version", "1"],
        ["publication_names", '"orders","My Pub"']
      ]
    })
    assert.deepStrictEqual(
      command,
      Result.succeed(
        `START_REPLICATION SLOT "orders" LOGICAL 16/B374D848 ("proto_version" '1', "publication_names" '"orders","My Pub"')`
      )
    )
  })

  it("leaves the parentheses out where there are no options, which the grammar demands", () => {
    assert.deepStrictEqual(start([]), Result.succeed('START_REPLICATION SLOT "orders" LOGICAL 0/0'))
  })

  it("leaves backslashes alone: the replication scanner knows no escapes", () => {
    assert.deepStrictEqual(
      start([["filter-tables", "public.Foo\\ bar"]]),
      Result.succeed(`START_REPLICATION SLOT "orders" LOGICAL 0/0 ("filter-tables" 'public.Foo\\ bar')`)
    )
  })

  it("refuses what cannot be sent as it is, and says which option it was", () => {
    assertInvalid(start([["a\0", "1"]]), "option name")
    assertInvalid(start([["", "1"]]), "option name")
    assertInvalid(start([["x".repeat(64), "1"]]), "option name")
    assertInvalid(start([["origin", "no\0ne"]]), "origin")
    assertInvalid(start([["origin", "\uD800"]]), "origin")
  })

  it("takes a value of any length", () => {
    const value = `"'\\${"x".repeat(10_240)}`
    assert.deepStrictEqual(optionsOf(Result.getOrThrow(start([["publication_names", value]]))), [
      ["publication_names", value]
    ])
  })

  const option = Arbitrary.all([hostile, hostile])
  it.prop(
    "is refused, or read back as the same options",
    { options: Arbitrary.array(option, { maxLength: 4 }) },
    ({ options }) => {
      const result = start(options)
      const isGood = options.every(([name, value]) => isName(name) && isSendable(value))
      assert.strictEqual(Result.isSuccess(result), isGood)
      if (Result.isSuccess(result)) assert.deepStrictEqual(optionsOf(result.success), options)
    },
    { arbitrary: { runs: 10_000 } }
  )

  it.prop("starts exactly where it is told to", { startLsn: Lsn.Lsn }, ({ startLsn }) => {
    const command = Result.getOrThrow(startReplicationCommand({ slot: "orders", startLsn, options: [] }))
    assert.strictEqual(Lsn.fromString(scan(command)[4]!.text), startLsn)
  })
})

describe("createReplicationSlotCommand", () => {
  const head = 'CREATE_REPLICATION_SLOT "orders" LOGICAL "pgoutput"'
  const create = (serverVersion: number, options: Partial<Parameters<typeof createReplicationSlotCommand>[0]> = {}) =>
    createReplicationSlotCommand({ slot: "orders", plugin: "pgoutput", ...options }, serverVersion)

  it("puts options in parentheses from PostgreSQL 15 on, and uses single words before", () => {
    for (const snapshot of ["export", "use", "nothing"] as const) {
      const word = { export: "EXPORT_SNAPSHOT", use: "USE_SNAPSHOT", nothing: "NOEXPORT_SNAPSHOT" }[snapshot]
      assert.deepStrictEqual(create(180_004, { snapshot }), Result.succeed(`${head} (SNAPSHOT '${snapshot}')`))
      assert.deepStrictEqual(create(150_000, { snapshot }), Result.succeed(`${head} (SNAPSHOT '${snapshot}')`))
      assert.deepStrictEqual(create(149_999, { snapshot }), Result.succeed(`${head} ${word}`))
    }
  })

  it("exports no snapshot unless asked to, though PostgreSQL would", () => {
    assert.deepStrictEqual(create(180_004), Result.succeed(`${head} (SNAPSHOT 'nothing')`))
    assert.deepStrictEqual(create(140_000), Result.succeed(`${head} NOEXPORT_SNAPSHOT`))
  })

  it("makes a temporary slot", () => {
    assert.deepStrictEqual(
      create(180_004, { temporary: true }),
      Result.succeed(`CREATE_REPLICATION_SLOT "orders" TEMPORARY LOGICAL "pgoutput" (SNAPSHOT 'nothing')`)
    )
  })

  it("asks for two-phase decoding and failover of servers that have them", () => {
    assert.deepStrictEqual(
      create(170_000, { twoPhase: true, failover: true }),
      Result.succeed(`${head} (SNAPSHOT 'nothing', TWO_PHASE, FAILOVER)`)
    )
    assert.deepStrictEqual(
      create(150_000, { twoPhase: true }),
      Result.succeed(`${head} (SNAPSHOT 'nothing', TWO_PHASE)`)
    )
  })

  it("knows from the version what a server cannot do", () => {
    assert.deepStrictEqual(
      refusal(create(149_999, { twoPhase: true })),
      new UnsupportedByServer({ feature: "TWO_PHASE", serverVersion: 149_999, neededVersion: 150_000 })
    )
    assert.deepStrictEqual(
      refusal(create(169_999, { failover: true })),
      new UnsupportedByServer({ feature: "FAILOVER", serverVersion: 169_999, neededVersion: 170_000 })
    )
  })

  it("asks for nothing that was turned off", () => {
    assert.deepStrictEqual(
      create(140_000, { twoPhase: false, failover: false, temporary: false }),
      Result.succeed(`${head} NOEXPORT_SNAPSHOT`)
    )
  })

  it("refuses failover of a temporary slot", () => {
    assertInvalid(create(180_004, { failover: true, temporary: true }), "failover")
  })

  it("refuses a plugin's name that is none", () => {
    for (const plugin of ["", "x".repeat(64), "\0"]) assertInvalid(create(180_004, { plugin }), "plugin")
  })

  it.prop(
    "is refused, or read back with the same plugin",
    { hostile },
    ({ hostile }) => {
      const result = create(180_004, { plugin: hostile })
      assert.strictEqual(Result.isSuccess(result), isName(hostile))
      if (Result.isFailure(result)) return
      assert.deepStrictEqual(
        scan(result.success).map(({ text }) => text),
        ["CREATE_REPLICATION_SLOT", "orders", "LOGICAL", hostile, "(", "SNAPSHOT", "nothing", ")"]
      )
    },
    { arbitrary: { runs: 10_000 } }
  )
})

describe("dropReplicationSlotCommand", () => {
  it("waits for the slot only when asked to", () => {
    assert.deepStrictEqual(
      dropReplicationSlotCommand({ slot: "orders" }),
      Result.succeed('DROP_REPLICATION_SLOT "orders"')
    )
    assert.deepStrictEqual(
      dropReplicationSlotCommand({ slot: "orders", wait: true }),
      Result.succeed('DROP_REPLICATION_SLOT "orders" WAIT')
    )
    assert.deepStrictEqual(
      dropReplicationSlotCommand({ slot: "orders", wait: false }),
      Result.succeed('DROP_REPLICATION_SLOT "orders"')
    )
  })
})

describe("alterReplicationSlotCommand", () => {
  const alter = (options: { failover?: boolean; twoPhase?: boolean }, serverVersion: number) =>
    alterReplicationSlotCommand({ slot: "orders", ...options }, serverVersion)

  it("sets what is given and leaves the rest as it is", () => {
    assert.deepStrictEqual(
      alter({ failover: true }, 170_000),
      Result.succeed('ALTER_REPLICATION_SLOT "orders" (FAILOVER true)')
    )
    assert.deepStrictEqual(
      alter({ twoPhase: false }, 180_000),
      Result.succeed('ALTER_REPLICATION_SLOT "orders" (TWO_PHASE false)')
    )
    assert.deepStrictEqual(
      alter({ failover: false, twoPhase: true }, 180_000),
      Result.succeed('ALTER_REPLICATION_SLOT "orders" (FAILOVER false, TWO_PHASE true)')
    )
  })

  it("knows from the version what a server cannot do", () => {
    assert.deepInclude(refusal(alter({ failover: true }, 169_999)), { neededVersion: 170_000 })
    assert.deepInclude(refusal(alter({ twoPhase: true }, 179_999)), { neededVersion: 180_000 })
  })

  it("refuses to alter nothing", () => {
    assertInvalid(alter({}, 180_000), "slot")
  })
})

describe("identifySystemCommand", () => {
  it("is the bare word", () => {
    assert.strictEqual(identifySystemCommand, "IDENTIFY_SYSTEM")
  })
})
