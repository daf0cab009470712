/**
 * Names that want to be commands, on a real server: 32 of them, as databases, publications, tables, columns, roles,
 * passwords, settings and slots. What is meant happens, and nothing else: the table that they would drop is there.
 */
import { assert, describe } from "@effect/vitest"
import { nextLsn, Pgoutput, withLogicalStream } from "@replicant/core"
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import { PgConfig, PgWalSender } from "@replicant/node"
import { Effect, Redacted } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, logicalOptions, walSender } from "../support/Follow.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

/** Each wants to leave its quotes, end its command, hide in a comment, or be taken for another. */
const names: ReadonlyArray<string> = [
  ...['"', '""', "'", "''", "\\", "\\'", '\\"', "a;b", "--", "/*", "*/", "$$", "$a$x$a$", "E'\\''"],
  ...[`"; DROP TABLE witness; --`, "'; DROP TABLE witness; --", `"'; DROP TABLE witness; --`],
  ...["') ; DROP TABLE witness; --", '") --', "a,b", '"a","b"', "(a", "a)", "a b", "a\tb", "line\nfeed", "\x1b[2Jx"],
  ...["MyPub", "Grüße 😀", "e\u0301x", "__proto__", `${"é".repeat(31)}z`]
]

/** What no name may do away with. */
const witness = "CREATE TABLE witness (id int PRIMARY KEY)"

const isThere = (workspace: Workspace) =>
  Effect.map(workspace.sql("SELECT to_regclass('witness') AS found"), ([row]) => row?.found === "witness")

const run = (workspace: Workspace, options: Partial<Parameters<typeof withLogicalStream>[0]>) =>
  withLogicalStream({ ...logicalOptions(workspace), ...options }, (change) => Effect.succeed(nextLsn(change))).pipe(
    Effect.provide(walSender(workspace))
  )

describe("32 hostile names", () => {
  fault("X6", "are 32, each of at most 63 bytes", () =>
    Effect.sync(() => {
      assert.strictEqual(new Set(names).size, 32)
      for (const name of names) assert.isAtMost(Buffer.byteLength(name), 63)
    })
  )

  fault("X6", "as tables and columns are streamed exactly, through publications so named", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: witness, publication: "FOR TABLE witness" })
      for (const [index, name] of names.entries()) {
        const quoted = quoteIdentifier(name)
        yield* workspace.sql(`
          CREATE TABLE ${quoted} (id int PRIMARY KEY, ${quoted} text);
          CREATE PUBLICATION ${quoted} FOR TABLE ${quoted};
          COMMENT ON TABLE ${quoted} IS ${quoteLiteral(`${index} ${name}`)}`)
      }
      const stream = yield* follow(workspace, { options: { plugin: Pgoutput.make({ publications: names }) } })
      for (const name of names) {
        const quoted = quoteIdentifier(name)
        yield* workspace.sql(`INSERT INTO ${quoted} VALUES (1, ${quoteLiteral(name)})`)
      }
      yield* stream.saw("Insert", names.length)
      const seen = stream.changes.flatMap((change) => (change._tag === "Insert" ? [change] : []))
      for (const [index, change] of seen.entries()) {
        const name = names[index]!
        assert.strictEqual(change.relation.name, name)
        assert.deepStrictEqual(Object.entries(change.row), [
          ["id", 1],
          [name, name]
        ])
      }
      const comments = yield* workspace.sql(
        "SELECT relname, obj_description(oid) AS comment FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
      )
      assert.deepStrictEqual(
        new Map(comments.map((row) => [row.relname, row.comment])),
        new Map<unknown, unknown>([
          ["witness", null],
          ...names.map((name, index): [unknown, unknown] => [name, `${index} ${name}`])
        ])
      )
    })
  )

  fault("X6", "as publications that are not there are named one by one, and nothing happens", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: witness })
      const error = yield* Effect.flip(run(workspace, { plugin: Pgoutput.make({ publications: names }) }))
      assert(error._tag === "PublicationNotFound")
      assert.sameMembers([...error.publications], [...names])
      assert.isTrue(yield* isThere(workspace))
    })
  )

  fault("X6", "as slots are refused before anything is sent", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: witness })
      // This one is a slot's name like any other.
      for (const slot of names.filter((name) => name !== "__proto__")) {
        assert.deepInclude(yield* Effect.flip(run(workspace, { slot })), { _tag: "InvalidOption", option: "slot" })
      }
      const slots = yield* workspace.sql(`SELECT FROM pg_replication_slots WHERE database = '${workspace.database}'`)
      assert.strictEqual(slots.length, 0)
      assert.isTrue(yield* isThere(workspace))
    })
  )

  /** Connects, and asks who and where we are. */
  const whoami = (options: PgConfig.Options) =>
    Effect.gen(function* () {
      const { connect } = PgWalSender.make(yield* Effect.fromResult(PgConfig.resolve(options)))
      const connection = yield* connect
      const [row] = yield* connection.query(
        "SELECT current_user AS role, current_database() AS database, current_setting('application_name') AS name, current_setting('replicant.test') AS setting"
      )
      return { ...row }
    }).pipe(Effect.scoped)

  fault("X6", "as roles, databases, passwords and settings log in to what they name", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: witness })
      const suffix = workspace.database.slice(-4)
      for (const [index, name] of names.entries()) {
        // Of the cluster, so they must differ from another run's: the end of a long name gives way.
        const own = `${[...name].slice(0, 25).join("")}${suffix}`
        const quoted = quoteIdentifier(own)
        yield* workspace.sql(`CREATE ROLE ${quoted} LOGIN REPLICATION PASSWORD ${quoteLiteral(name)}`)
        // Making a database takes a while: a few of them will do.
        const hasDatabase = index % 4 === 0
        if (hasDatabase) yield* workspace.sql(`CREATE DATABASE ${quoted}`)
        const database = hasDatabase ? own : workspace.database
        const found = yield* whoami({
          ...workspace.connection,
          user: own,
          password: Redacted.make(name),
          database,
          settings: { "replicant.test": name }
        }).pipe(
          Effect.ensuring(
            Effect.ignore(
              Effect.andThen(
                hasDatabase ? workspace.sql(`DROP DATABASE ${quoted} WITH (FORCE)`) : Effect.void,
                workspace.sql(`DROP ROLE ${quoted}`)
              )
            )
          )
        )
        assert.deepStrictEqual(found, { role: own, database, name: "replicant", setting: name })
      }
      assert.isTrue(yield* isThere(workspace))
    })
  )

  fault("X6", "and passwords as long as may be, or that NUL would cut, are sent whole or not at all", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: witness })
      const role = `${workspace.database}_role`
      const login = (password: string) =>
        whoami({
          ...workspace.connection,
          user: role,
          password: Redacted.make(password),
          settings: { "replicant.test": 1 }
        })
      const long = `${names.filter((name) => !name.includes("\u0301")).join("")}${"x".repeat(10_000)}`
      yield* workspace.sql(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD ${quoteLiteral(long)}`)
      yield* Effect.ensuring(
        Effect.gen(function* () {
          assert.strictEqual((yield* login(long)).role, role)
          assert.strictEqual((yield* Effect.flip(login(long.slice(0, -1))))._tag, "AuthenticationFailed")
          assert.deepInclude(yield* Effect.flip(login(`${long}\0`)), { _tag: "InvalidOption", option: "password" })
          // Both sides fold these, where nothing else is in the way.
          yield* workspace.sql(`ALTER ROLE ${role} PASSWORD ${quoteLiteral("\uFB01ne\u00A0e\u0301")}`)
          for (const same of ["\uFB01ne\u00A0e\u0301", "fine \u00E9"]) yield* login(same)
          // Known limit: PostgreSQL leaves a password alone that holds what SASLprep forbids, and pg folds it.
          yield* workspace.sql(`ALTER ROLE ${role} PASSWORD ${quoteLiteral("e\u0301\u202E")}`)
          const refused = yield* Effect.flip(login("e\u0301\u202E"))
          assert.include((refused as { remedy: string }).remedy, "Unicode")
        }),
        Effect.ignore(workspace.sql(`DROP ROLE ${role}`))
      )
      yield* eventually(isThere(workspace))
    })
  )
})
