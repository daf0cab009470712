/**
 * Scenarios of the conformance tests: SQL on one side, and on the other exactly the changes that come of it, no more,
 * no less, in that order.
 *
 * Changes are compared as a transcript, one line a change:
 *
 *     I t{a=1,b=x}                 insert
 *     U t N{a=1,b=y}               update; K{a=1} or O{a=1,b=x} before it is what the server tells of the old row
 *     U t N{a=1,~big}              big was not sent, as it is unchanged, and is not in the row
 *     D t K{a=1}                   delete
 *     T[t1,t2] cascade restart     truncate
 *     M tx prefix content          message in a transaction; "M - …" outside of any
 *     R t(a*,b) ri=d               RelationChanged: a is of the key; ri is d, n, f or i
 *     O name                       origin
 *     P gid                        the end of a prepared transaction; CP and RP gid say what became of it
 *
 * Tables of other schemas than public bear its name: s1.t. Values that are not one plain word are printed as JSON, long
 * ones by their length, x*5000 for 5,000 times x.
 */
import { randomBytes } from "node:crypto"
import { assert } from "@effect/vitest"
import { type Change, nextLsn, type OldRow, Pgoutput, type Relation, type Replication, type Row } from "@replicant/core"
import type { PgServerFailed, PgSession } from "@replicant/node/testing"
import { Effect, Layer, type Scope } from "effect"
import { eventually } from "./eventually.ts"
import { type Follower, follow, walSender } from "./Follow.ts"
import { PgoutputPrinter, printContent, printName, printRelation, printText, printTruncate } from "./PgoutputText.ts"
import { onServer, type Server, type ServerTestOptions } from "./Servers.ts"
import { makeWorkspace, type Workspace, type WorkspaceOptions } from "./Workspace.ts"

/** A test that bears the id of a scenario, so that the list of ids can be checked against the titles. */
export const scenario = (
  id: string,
  title: string,
  body: (server: Server) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options?: ServerTestOptions
): void => onServer("postgres", `[${id}] ${title}`, body, options)

const printValue = (value: unknown): string => {
  if (value === null) return "null"
  if (value instanceof Uint8Array) return printContent(value)
  if (value instanceof Date) return value.toISOString()
  if (typeof value === "string") return printText(value)
  return typeof value === "object" ? JSON.stringify(value) : String(value)
}

/**
 * The columns in the order of the relation: with its value, or `~` where it was listed as unchanged. One that is
 * neither is `!`, but for old keys, and one that the relation does not have is `?`: no transcript expects these.
 */
const printColumns = (
  { columns }: Relation.Relation,
  row: Row,
  unchanged: ReadonlyArray<string> | "only the key"
): string => {
  const printed = columns.flatMap(({ name }) => {
    const isUnchanged = unchanged !== "only the key" && unchanged.includes(name)
    if (Object.hasOwn(row, name)) return [`${isUnchanged ? "!" : ""}${printText(name)}=${printValue(row[name])}`]
    if (unchanged === "only the key") return []
    return [`${isUnchanged ? "~" : "!"}${printText(name)}`]
  })
  const names = new Set(columns.map(({ name }) => name))
  const strangers = Object.keys(row).filter((name) => !names.has(name))
  return `{${[...printed, ...strangers.map((name) => `?${printText(name)}`)].join(",")}}`
}

const printOld = (relation: Relation.Relation, old: OldRow): string =>
  old._tag === "Key" ? `K${printColumns(relation, old.row, "only the key")}` : `O${printColumns(relation, old.row, [])}`

const nameOf = (relation: Relation.Relation): string => printName(relation.schema, relation.name)

/** A relation as a transcript shows it: `R t(a*,b) ri=d`. */
export const relationText = (relation: Relation.Relation): string =>
  printRelation(nameOf(relation), relation.replicaIdentity?.[0] ?? "?", relation.columns)

/** The relations that changes refer to, one for each object, in the order of their first change. */
export const relationsOf = (changes: ReadonlyArray<Change>): ReadonlyArray<string> =>
  [
    ...new Set(
      changes.flatMap((change) => {
        if (change._tag === "Truncate") return change.relations
        return "relation" in change ? [change.relation] : []
      })
    )
  ].map(relationText)

const line = (change: Change): string => {
  switch (change._tag) {
    case "Begin":
      return "B"
    case "Commit":
      return "C"
    case "Insert":
      return `I ${nameOf(change.relation)}${printColumns(change.relation, change.row, change.unchanged)}`
    case "Update": {
      const old = change.old === undefined ? "" : `${printOld(change.relation, change.old)} `
      return `U ${nameOf(change.relation)} ${old}N${printColumns(change.relation, change.row, change.unchanged)}`
    }
    case "Delete":
      return `D ${nameOf(change.relation)} ${printOld(change.relation, change.old)}`
    case "Truncate":
      return printTruncate(change.relations.map(nameOf), change)
    case "Message":
      return `M ${change.transactional ? "tx" : "-"} ${printText(change.prefix)} ${printContent(change.content)}`
    case "Origin":
      return `O ${printText(change.name)}`
    case "RelationChanged":
      return relationText(change.relation)
    case "Prepare":
      return `P ${printText(change.gid)}`
    case "CommitPrepared":
      return `CP ${printText(change.gid)}`
    case "RollbackPrepared":
      return `RP ${printText(change.gid)}`
    case "Gap":
      return `GAP ${change.reason}`
  }
}

/** One line a change, `B` and `C` included. */
export const transcript = (changes: ReadonlyArray<Change>): ReadonlyArray<string> => changes.map(line)

/**
 * One change is a transaction of its own; an array is a transaction of several, ended by `C` unless by a `P gid` of its
 * own. What stands outside of any (`M - …`, `CP gid`, `RP gid`) is one line.
 */
export type Expected = ReadonlyArray<string | ReadonlyArray<string>>

const standsAlone = /^(M -|CP|RP) /

/** What {@link transcript} should be. */
export const expected = (units: Expected): ReadonlyArray<string> =>
  units.flatMap((unit) => {
    if (typeof unit === "string") return standsAlone.test(unit) ? [unit] : ["B", unit, "C"]
    return unit.at(-1)?.startsWith("P ") === true ? ["B", ...unit] : ["B", ...unit, "C"]
  })

/** PostgreSQL 14 sends transactions of which nothing is published: `B C`, which later versions leave out. */
export const withoutEmpty = (server: Server, lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (server.majorVersion > 14) return lines
  return lines.filter(
    (text, index) => !(text === "B" && lines[index + 1] === "C") && !(text === "C" && lines[index - 1] === "B")
  )
}

export interface RecordOptions extends WorkspaceOptions {
  /** Names to subscribe to; the workspace's publication unless told otherwise. They need not exist before `sql` ran. */
  readonly publications?: ReadonlyArray<string> | undefined
  /** What else is asked of pgoutput. */
  readonly plugin?: Omit<Pgoutput.Options, "publications"> | undefined
  /** What the plugin needs beside a connection: a `TransactionSpill`. */
  readonly layer?: Layer.Layer<never> | undefined
  /** What else is asked of the stream. */
  readonly stream?: Partial<Replication.Options> | undefined
}

/** A workspace with a Replicant stream on it that runs from before the first statement. */
export interface Recorder extends Workspace {
  /** Runs statements one after the other, each a transaction of its own, all in one session. */
  readonly run: (...statements: ReadonlyArray<string>) => Effect.Effect<void, PgServerFailed>
  /**
   * What was delivered since the last `take` of what is committed by now: writes an end mark, a transactional message,
   * and waits for it. The mark itself is left out, and on 14 empty transactions are.
   */
  readonly take: Effect.Effect<ReadonlyArray<Change>, unknown>
  /** Takes, and compares all of it; gives the changes, for what a transcript does not show. */
  readonly expect: (...units: Expected) => Effect.Effect<ReadonlyArray<Change>, unknown>
  /**
   * What the server itself says, in a decoding session of its own, of everything since the recorder began, in the same
   * notation: relations (`R`, and `Y` for types) wherever they are sent, and `~` for every value sent as unchanged.
   */
  readonly raw: Effect.Effect<ReadonlyArray<string>, unknown>
  /**
   * Compares all of {@link raw}. Where a relation is listed, it must be sent; it may also be sent again, in the same
   * words, where it is not: the server does so whenever anything, in any database, makes it drop its caches.
   */
  readonly expectRaw: (...units: Expected) => Effect.Effect<void, unknown>
  readonly stream: Follower<never>
}

const markPrefix = "the end of the transcript"

const isMark = (change: Change | undefined, content?: string): boolean =>
  change?._tag === "Message" &&
  change.prefix === markPrefix &&
  (content === undefined || Buffer.from(change.content).toString() === content)

/** A transaction that holds `isMarked` and nothing else is not part of what was recorded. */
const withoutMarks = <A>(items: ReadonlyArray<A>, isMarked: (item: A | undefined) => boolean): ReadonlyArray<A> =>
  items.filter((item, index) => !(isMarked(item) || isMarked(items[index + 1]) || isMarked(items[index - 1])))

/** Drops what {@link withoutEmpty} drops, of changes. */
const withoutEmptyChanges = (server: Server, changes: ReadonlyArray<Change>): ReadonlyArray<Change> => {
  if (server.majorVersion > 14) return changes
  const isEmpty = (begin: Change | undefined, commit: Change | undefined) =>
    begin?._tag === "Begin" && commit?._tag === "Commit"
  return changes.filter(
    (change, index) => !(isEmpty(change, changes[index + 1]) || isEmpty(changes[index - 1], change))
  )
}

/** Drops relations that repeat what was last said of them, where `wanted` has something else. */
const withoutRepeats = (lines: ReadonlyArray<string>, wanted: ReadonlyArray<string>): ReadonlyArray<string> => {
  const latest = new Map<string, string>()
  const kept: Array<string> = []
  for (const text of lines) {
    const name = text.startsWith("R ") ? text.slice(0, text.indexOf("(")) : undefined
    const isRepeat = name !== undefined && latest.get(name) === text
    if (name !== undefined) latest.set(name, text)
    if (!isRepeat || wanted[kept.length] === text) kept.push(text)
  }
  return kept
}

/** How long a mark may take: a scenario of ten thousand rows on a busy machine. */
const deadline = "45 seconds"

/** Makes a workspace, follows it, and records what comes. */
export const record = Effect.fnUntraced(function* (
  server: Server,
  { layer = Layer.empty, plugin, publications, stream: streamOptions, ...options }: RecordOptions = {}
): Effect.fn.Return<Recorder, unknown, Scope.Scope> {
  const workspace = yield* makeWorkspace(server, options)
  const names = publications ?? [workspace.publication]
  const rawSlot = `${workspace.slot}_raw`
  yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${rawSlot}', 'pgoutput')`)
  const stream = yield* follow(workspace, {
    options: { plugin: Pgoutput.make({ publications: names, ...plugin }), ...streamOptions },
    layer: Layer.merge(walSender(workspace), layer),
    handler: (change) => Effect.succeed(nextLsn(change))
  })
  const session: PgSession.PgSession = yield* workspace.session
  let taken = 0
  const take = Effect.gen(function* () {
    const mark = randomBytes(6).toString("hex")
    yield* workspace.sql(`SELECT pg_logical_emit_message(true, '${markPrefix}', '${mark}')`)
    const end = yield* Effect.raceFirst(
      eventually(
        Effect.sync(() => {
          const at = stream.changes.findIndex((change, index) => index >= taken && isMark(change, mark))
          return at >= 0 && stream.changes[at + 1]?._tag === "Commit" ? at + 2 : undefined
        }),
        { what: "the end mark arrived", deadline }
      ),
      Effect.matchEffect(stream.failure, { onSuccess: Effect.fail, onFailure: () => Effect.never })
    )
    const changes = stream.changes.slice(taken, end)
    taken = end
    return withoutEmptyChanges(
      server,
      withoutMarks(changes, (change) => isMark(change))
    )
  })
  const raw = Effect.gen(function* () {
    const list = names.map((name) => `"${name.replaceAll('"', '""')}"`).join(",")
    const rows = yield* workspace.sql(
      `SELECT data FROM pg_logical_slot_peek_binary_changes('${rawSlot}', NULL, NULL, 'proto_version', '1',
         'messages', 'true', 'publication_names', '${list.replaceAll("'", "''")}')`
    )
    const printer = new PgoutputPrinter()
    const lines = rows.map((row) => printer.print(row.data as Uint8Array))
    const isMarkLine = (text: string | undefined) => text?.startsWith(`M tx ${printText(markPrefix)} `) === true
    return withoutEmpty(server, withoutMarks(lines, isMarkLine))
  })
  return {
    ...workspace,
    stream,
    run: (...statements) => Effect.forEach(statements, session.query, { discard: true }),
    take,
    expect: (...units) =>
      Effect.tap(take, (changes) => Effect.sync(() => assert.deepStrictEqual(transcript(changes), expected(units)))),
    raw,
    expectRaw: (...units) =>
      Effect.map(raw, (lines) => {
        const wanted = expected(units)
        assert.deepStrictEqual(withoutRepeats(lines, wanted), wanted)
      })
  }
})
