/** `replicant codegen` on real catalogs: what it writes type-checks, and takes what the database then sends. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { assert, describe } from "@effect/vitest"
import { nextLsn, Table, withLogicalStream } from "@replicant/core"
import { Effect, type Scope } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { replicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** A directory from which a module finds our packages. */
const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const path = Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-codegen-"))
    Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(path, "node_modules"))
    Fs.writeFileSync(Path.join(path, "package.json"), '{ "type": "module" }')
    return path
  }),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

/** What `tsc` says of these files, under this repository's options; empty when it is content. */
const typeCheck = Effect.fnUntraced(function* (path: string) {
  const config = {
    extends: Path.join(root, "tsconfig.json"),
    compilerOptions: { noEmit: true, typeRoots: [Path.join(root, "node_modules/@types")] },
    include: ["*.ts"]
  }
  Fs.writeFileSync(Path.join(path, "tsconfig.json"), JSON.stringify(config))
  let said = ""
  let code: number | null | undefined
  const tsc = spawn(process.execPath, [Path.join(root, "node_modules/typescript/bin/tsc"), "-p", path], { cwd: path })
  tsc.stdout.on("data", (text) => (said += text))
  tsc.stderr.on("data", (text) => (said += text))
  tsc.on("close", (exitCode) => (code = exitCode))
  yield* eventually(
    Effect.sync(() => code !== undefined),
    { what: "tsc ended" }
  )
  return code === 0 ? "" : said || `exit code ${code}`
})

const codegen = (workspace: Workspace, ...args: ReadonlyArray<string>) =>
  replicant(["codegen", ...args], { DATABASE_URL: workspace.url() })

/** The tables that a generated module declares. */
const load = (file: string) =>
  Effect.promise(
    async () => (await import(/* @vite-ignore */ pathToFileURL(file).href)).tables as ReadonlyArray<Table.Any>
  )

/** Types that hold data, with a value of each: every one that a table of a user may sensibly have. */
const values: ReadonlyArray<readonly [type: string, value: string]> = [
  ["boolean", "true"],
  ["bytea", "'\\x00ff'"],
  ['"char"', "'c'"],
  ["name", "'n'"],
  ["bigint", "9223372036854775807"],
  ["smallint", "-1"],
  ["integer", "1"],
  ["text", "'it''s'"],
  ["oid", "4294967295"],
  ["tid", "'(1,2)'"],
  ["xid", "'7'"],
  ["cid", "'7'"],
  ["int2vector", "'1 2'"],
  ["oidvector", "'1 2'"],
  ["json", "'{\"a\":[1,null]}'"],
  ["jsonb", "'[]'"],
  ["xml", "'<a/>'"],
  ["point", "'(1,2)'"],
  ["lseg", "'[(1,2),(3,4)]'"],
  ["path", "'((1,2),(3,4))'"],
  ["box", "'(3,4),(1,2)'"],
  ["polygon", "'((1,2),(3,4))'"],
  ["line", "'{1,2,3}'"],
  ["circle", "'<(1,2),3>'"],
  ["cidr", "'10.0.0.0/8'"],
  ["inet", "'::1'"],
  ["macaddr", "'08:00:2b:01:02:03'"],
  ["macaddr8", "'08:00:2b:01:02:03:04:05'"],
  ["real", "'NaN'"],
  ["double precision", "'-Infinity'"],
  ["money", "12.5"],
  ["char(3)", "'a'"],
  ["varchar(9)", "'a'"],
  ["date", "'infinity'"],
  ["time(3)", "'12:30'"],
  ["timestamp", "'2026-01-02 03:04'"],
  ["timestamptz(3)", "'2026-01-02 03:04+02'"],
  ["interval day to second(3)", "'1 day'"],
  ["timetz", "'12:30+02'"],
  ["bit(3)", "'101'"],
  ["varbit", "'1'"],
  ["numeric(30,2)", "'NaN'"],
  ["uuid", "'b5c1cd0e-13a5-4ca5-9e1c-5b4a40fd3c2f'"],
  ["pg_lsn", "'0/1'"],
  ["tsvector", "'a b'"],
  ["tsquery", "'a & b'"],
  ["jsonpath", "'$.a'"],
  ["int4range", "'[1,2)'"],
  ["tstzrange", "'[2026-01-02,)'"],
  ["nummultirange", "'{[1,2)}'"],
  ["regclass", "'pg_class'"],
  ["pg_snapshot", "'1:2:'"],
  ["xid8", "'8'"],
  ["mood", "'sad'"],
  ["positive", "3"],
  ["moods", "'happy'"],
  ["tags", "'{a,NULL}'"],
  ["pair", "'(1,2)'"],
  ["floats", "'[1,2]'"],
  ["bigint[]", "'{1,NULL}'"],
  ["text[][]", "'{{a,b},{c,NULL}}'"],
  ["boolean[]", "'{}'"],
  ["box[]", "'{(3,4),(1,2)}'"],
  ["bytea[]", "'{\"\\\\x01\"}'"],
  ["jsonb[]", "'{\"{}\"}'"],
  ["mood[]", "'{sad}'"],
  ["positive[]", "'{1}'"]
]

const userTypes = `
  CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
  CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
  CREATE DOMAIN moods AS mood;
  CREATE DOMAIN tags AS text[];
  CREATE TYPE pair AS (a int, b int);
  CREATE TYPE floats AS RANGE (subtype = float8);`

const everyType = `${userTypes}
  CREATE TABLE every_type (id int PRIMARY KEY, ${values.map(([type], index) => `c${index} ${type}`).join(", ")});
  CREATE TABLE required (id int PRIMARY KEY, ${values.map(([type], index) => `c${index} ${type} NOT NULL`).join(", ")})`

const oddNames = `
  CREATE SCHEMA "crm.eu";
  CREATE TABLE order_items (order_id bigint, line int, note text, PRIMARY KEY (line, order_id));
  ALTER TABLE order_items ALTER note SET STORAGE EXTERNAL;
  CREATE TABLE "crm.eu"."a ""b"" */" ("__proto__" int PRIMARY KEY, "constructor" text, "class" text, "größe" text,
    "it's" text, "say ""hi""" text, "1" text, "a.b" text, "\${x}\`\\" text NOT NULL, "new
line" text);
  ALTER TABLE "crm.eu"."a ""b"" */" ALTER "a.b" SET STORAGE EXTERNAL;
  CREATE TABLE "crm.eu"."table" ("Schema" int);
  ALTER TABLE "crm.eu"."table" REPLICA IDENTITY FULL;
  CREATE TABLE "crm.eu".order_items (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)`

/** Follows the workspace's publication through the declared tables: what came, and what it failed with. */
const decode = Effect.fnUntraced(function* (workspace: Workspace, tables: ReadonlyArray<Table.Any>) {
  const seen: Array<Table.TypedChange<Table.Any>> = []
  let failure: unknown
  const handler = Table.handler(tables, (change) => {
    seen.push(change)
    return Effect.succeed(nextLsn(change))
  })
  yield* withLogicalStream(logicalOptions(workspace), handler).pipe(
    Effect.provide(walSender(workspace)),
    Effect.tapError((error) => Effect.sync(() => (failure = error))),
    Effect.forkScoped
  )
  yield* eventually(workspace.isStreaming(workspace.slot), { what: "the stream began" })
  return {
    commits: (count: number) =>
      eventually(
        Effect.sync(() => failure !== undefined || seen.filter(({ _tag }) => _tag === "Commit").length >= count),
        { what: `${count} commits came` }
      ).pipe(Effect.andThen(Effect.sync(() => assert.isUndefined(failure, String(failure))))),
    /** Table, row, and the row before, of each change of a row. */
    rows: () =>
      seen.flatMap((change) => {
        switch (change._tag) {
          case "Insert":
            return [[change.table, change.row, undefined] as const]
          case "Update":
            return [[change.table, change.row, change.old] as const]
          case "Delete":
            return [[change.table, undefined, change.old] as const]
          default:
            return []
        }
      })
  }
})

describe("replicant codegen", () => {
  onServer(
    "postgres",
    "declares every type as its values come, NULL or not",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: everyType })
        const path = yield* directory
        const file = Path.join(path, "tables.ts")
        const made = yield* codegen(workspace, "--publication", workspace.publication, "--out", file)
        assert.strictEqual(made.code, 0, made.stderr)
        const consumer = `import { EveryType, Required } from "./tables.ts"
          type Every = typeof EveryType.rowSchema.Type
          type Whole = typeof Required.rowSchema.Type
          type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
          export const bigint: Same<Every["c4"], bigint | null> = true
          export const number: Same<Whole["c6"], number> = true
          export const bytes: Whole["c1"] extends Uint8Array ? true : false = true
          export const mood: Same<Whole["c53"], "sad" | 'so "so"' | "happy"> = true
          export const positive: Same<Whole["c54"], number> = true
          export const moods: Same<Every["c55"], "sad" | 'so "so"' | "happy" | null> = true
          export const tags: Same<Whole["c56"], ReadonlyArray<string | null>> = true
          export const texts: Same<Whole["c60"], ReadonlyArray<ReadonlyArray<string | null>>> = true
          export const json: Same<Every["c14"], unknown> = true
          export const key: Same<typeof EveryType.key, ReadonlyArray<"id">> = true
          // @ts-expect-error: an enum has no other values.
          export const other: Whole["c53"] = "other"
          `
        Fs.writeFileSync(Path.join(path, "consumer.ts"), consumer)
        assert.strictEqual(yield* typeCheck(path), "")
        const stream = yield* decode(workspace, yield* load(file))
        const all = values.map(([, value]) => value).join(", ")
        yield* workspace.sql(`SET standard_conforming_strings = on; INSERT INTO every_type VALUES (1, ${all}); INSERT INTO every_type VALUES (2);
          INSERT INTO required VALUES (1, ${all})`)
        yield* workspace.sql("UPDATE every_type SET id = 3 WHERE id = 2; DELETE FROM required")
        yield* stream.commits(2)
        const [whole, nulls, required, updated, deleted] = stream.rows()
        assert.lengthOf(Object.keys(whole?.[1] as object), values.length + 1)
        assert.deepInclude(whole?.[1], { c4: 9223372036854775807n, c53: "sad", c56: ["a", null], c59: [1n, null] })
        assert.deepInclude(whole?.[1], {
          c60: [
            ["a", "b"],
            ["c", null]
          ],
          c65: "{sad}",
          c66: "{1}"
        })
        assert.isTrue(Object.entries(nulls?.[1] as object).every(([name, value]) => name === "id" || value === null))
        assert.deepStrictEqual(required?.[1], whole?.[1])
        assert.deepInclude(updated?.[2], { _tag: "Key", row: { id: 2 } })
        assert.deepStrictEqual(deleted, ["public.required", undefined, { _tag: "Key", row: { id: 1 } }])
      }),
    { timeout: 120_000 }
  )

  onServer("postgres", "keeps composite keys, odd names and generated columns apart from its own words", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: oddNames })
      const path = yield* directory
      const file = Path.join(path, "tables.ts")
      const made = yield* codegen(workspace, "--schema", "crm.eu", "--schema", "public", "--out", file)
      assert.strictEqual(made.code, 0, made.stderr)
      const consumer = `import { AB, CrmEuOrderItems, OrderItems, TableTable, tables } from "./tables.ts"
        export const all: ReadonlyArray<unknown> = [AB, CrmEuOrderItems, OrderItems, TableTable, ...tables]
        export const key: ReadonlyArray<"line" | "order_id"> = OrderItems.key
        export const odd = (row: typeof AB.rowSchema.Type): string => row["\${x}\`\\\\"]
        // @ts-expect-error: it is generated, and not sent.
        export const twice = (row: typeof CrmEuOrderItems.rowSchema.Type) => row.twice
        `
      Fs.writeFileSync(Path.join(path, "consumer.ts"), consumer)
      assert.strictEqual(yield* typeCheck(path), "")
      const stream = yield* decode(workspace, yield* load(file))
      const odd = `"crm.eu"."a ""b"" */"`
      yield* workspace.sql(`INSERT INTO ${odd} VALUES (1, 'c', 'd', 'e', 'f', 'g', 'h', repeat('x', 9000), 'j', 'k');
        UPDATE ${odd} SET "class" = 'z', "__proto__" = 2; DELETE FROM ${odd}`)
      yield* workspace.sql(`INSERT INTO order_items VALUES (1, 2, repeat('x', 9000)); UPDATE order_items SET line = 3;
        INSERT INTO "crm.eu"."table" VALUES (1); DELETE FROM "crm.eu"."table"; INSERT INTO "crm.eu".order_items VALUES (5)`)
      yield* stream.commits(2)
      const own = (value: unknown) => Object.fromEntries(Object.entries(value as object).map(([k, v]) => [`_${k}`, v]))
      const [inserted, updated, deleted, ...others] = stream.rows()
      assert.deepInclude(own(inserted?.[1]), { ___proto__: 1, _constructor: "c", "_new\nline": "k" })
      assert.deepInclude(own(updated?.[1]), { ___proto__: 2, _class: "z" })
      assert.notProperty(own(updated?.[1]), "_a.b", "TOAST, and unchanged")
      assert.deepStrictEqual(own(deleted?.[2]?.row), { ___proto__: 2 })
      assert.deepStrictEqual(others[1], [
        "public.order_items",
        { order_id: 1n, line: 3 },
        { _tag: "Key", row: { line: 2, order_id: 1n } }
      ])
      assert.deepStrictEqual(others[3], ["crm.eu.table", undefined, { _tag: "Full", row: { Schema: 1 } }])
      assert.deepStrictEqual(others[4], ["crm.eu.order_items", { id: 5 }, undefined])
    })
  )

  onServer(
    "postgres",
    "writes the same again, tells with --check when the database has moved on, and names no server",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE b (id int PRIMARY KEY, mood mood); CREATE TABLE a (n text, made int GENERATED ALWAYS AS (1) STORED)"
        })
        const path = yield* directory
        const file = Path.join(path, "tables.ts")
        const args = ["--table", "public.b", "--table", "a", "--out", file]
        const sent = yield* codegen(workspace, "--publication", workspace.publication)
        assert.notInclude(sent.stdout, "made: ", "a generated column is not sent, unless the publication says so")
        const missing = yield* codegen(workspace, ...args, "--check")
        assert.strictEqual(missing.code, 1)
        assert.isFalse(Fs.existsSync(file))
        assert.strictEqual((yield* codegen(workspace, ...args)).stdout, `${file} is written: 2 tables\n`)
        const source = Fs.readFileSync(file, "utf8")
        assert.include(source, " *     replicant codegen --table a --table public.b\n")
        for (const secret of [workspace.connection.host, workspace.database, String(workspace.connection.port)]) {
          assert.notInclude(source, secret)
        }
        assert.strictEqual((yield* codegen(workspace, ...args)).stdout, `${file} is up to date: 2 tables\n`)
        const swapped = yield* codegen(workspace, "--table", "a", "--table", "public.b")
        assert.strictEqual(swapped.stdout, source)
        yield* workspace.sql(`ALTER DATABASE ${workspace.database} SET search_path = 'elsewhere';
        ALTER DATABASE ${workspace.database} SET quote_all_identifiers = on`)
        assert.strictEqual((yield* codegen(workspace, ...args, "--check")).code, 0)
        yield* workspace.sql("ALTER TABLE public.a ADD more int")
        const moved = yield* codegen(workspace, ...args, "--check", "--json")
        assert.strictEqual(moved.code, 1)
        assert.deepInclude(JSON.parse(moved.stderr), {
          error: "CodegenFailed",
          message: `${file} is not what the database has`,
          cure: `replicant codegen --table a --table public.b --out ${file}`
        })
        assert.strictEqual(Fs.readFileSync(file, "utf8"), source)
      })
  )

  onServer(
    "postgres",
    "makes the modules of a file: by pattern, in camel case, with Schemas of JSON, formatted",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE SCHEMA shop; CREATE TABLE shop.orders (order_id int PRIMARY KEY, meta jsonb NOT NULL, placed_at date);
          CREATE TABLE shop.tmp_1 (id int); CREATE TABLE logs (id int PRIMARY KEY);
          CREATE TABLE shop.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
          CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (10)`
        })
        const path = yield* directory
        const config = Path.join(path, "shop.json")
        const shop = {
          out: "shop.ts",
          tables: ["shop.*"],
          exclude: ["shop.tmp_*"],
          casing: "camel",
          columns: { "shop.orders.meta": "./schemas.ts#Meta" },
          format: "sed s/Schema.Number/Schema.Int/"
        }
        Fs.writeFileSync(config, JSON.stringify({ modules: [shop, { out: "logs.ts", tables: ["log?"] }] }))
        Fs.writeFileSync(
          Path.join(path, "schemas.ts"),
          `import { Schema } from "effect"\nexport const Meta = Schema.Struct({ gift: Schema.Boolean })\n`
        )
        const made = yield* codegen(workspace, "--config", config)
        assert.strictEqual(made.code, 0, made.stderr)
        assert.match(made.stdout, /shop\.ts is written: 2 tables\n.*logs\.ts is written: 1 table\n/)
        const source = Fs.readFileSync(Path.join(path, "shop.ts"), "utf8")
        assert.include(source, " *     replicant codegen --config shop.json\n")
        assert.include(source, "orderId: Schema.Int, // integer")
        Fs.writeFileSync(
          Path.join(path, "consumer.ts"),
          `import { Orders, Parts } from "./shop.ts"
        export const gift = (row: typeof Orders.rowSchema.Type): boolean => row.meta.gift
        export const key: ReadonlyArray<"orderId"> = Orders.key
        export const parts = Parts
        `
        )
        assert.strictEqual(yield* typeCheck(path), "")
        const stream = yield* decode(workspace, yield* load(Path.join(path, "shop.ts")))
        yield* workspace.sql(`INSERT INTO shop.orders VALUES (1, '{"gift": true}', '2026-11-30')`)
        yield* stream.commits(1)
        const row = { orderId: 1, meta: { gift: true }, placedAt: "2026-11-30" }
        assert.deepStrictEqual(stream.rows()[0]?.slice(0, 2), ["shop.orders", row])
        assert.strictEqual((yield* codegen(workspace, "--config", config, "--check")).code, 0)
        yield* workspace.sql("ALTER TABLE shop.orders ADD more_text text")
        assert.strictEqual((yield* codegen(workspace, "--config", config, "--check")).code, 1)

        const refusedBy = Effect.fnUntraced(function* (modules: unknown) {
          Fs.writeFileSync(config, JSON.stringify({ modules }))
          const { code, stderr } = yield* codegen(workspace, "--config", config)
          assert.strictEqual(code, 1)
          return stderr
        })
        assert.match(yield* refusedBy([{ ...shop, casing: "snake" }]), /\["modules"\]\[0\]\["casing"\]/)
        assert.match(yield* refusedBy([{ ...shop, tabels: [] }]), /tabels/)
        assert.match(yield* refusedBy([{ ...shop, format: "exit 3" }]), /formatter failed: exit code 3/)
        const stray = { "shop.orders.mtea": "./schemas.ts#Meta" }
        assert.match(yield* refusedBy([{ ...shop, columns: stray }]), /no column "shop\.orders\.mtea"/)
      })
  )

  onServer("postgres", "fails with a cure for what is not there, and for an empty publication", (server) =>
    Effect.gen(function* () {
      const sql = "CREATE TABLE a (id int PRIMARY KEY); CREATE VIEW v AS SELECT 1; CREATE PUBLICATION empty"
      const workspace = yield* makeWorkspace(server, { sql })
      const failed = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
        const { code, stderr, stdout } = yield* codegen(workspace, ...args)
        assert.strictEqual(code, 1)
        assert.strictEqual(stdout, "")
        assert.match(stderr, /^error: .*\ncure: .*\n$/)
        return stderr
      })
      assert.include(yield* failed("--table", "a", "--table", "v"), 'no table "public.v"')
      assert.include(yield* failed("--publication", "none"), 'no publication "none"')
      assert.include(yield* failed("--publication", "empty"), "sends no table")
      assert.include(yield* failed("--schema", "empty"), "has no table")
      assert.include(yield* failed("--table", "a", "--out", "/nowhere/at/all.ts"), "cannot write /nowhere/at/all.ts")
    })
  )

  onServer(
    "postgres",
    "leaves out what a column list leaves out",
    (server) =>
      Effect.gen(function* () {
        const sql = "CREATE TABLE a (id int PRIMARY KEY, hidden text, shown text)"
        const workspace = yield* makeWorkspace(server, { sql, publication: "FOR TABLE a (id, shown)" })
        const { stdout } = yield* codegen(workspace, "--publication", workspace.publication)
        assert.include(stdout, "shown: ")
        assert.notInclude(stdout, "hidden")
      }),
    { since: 15 }
  )

  onServer(
    "postgres",
    "declares generated columns that are published, and a column nullable that is NOT NULL for new rows alone",
    (server) =>
      Effect.gen(function* () {
        const sql = `CREATE TABLE a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, late int);
          ALTER TABLE a ADD CONSTRAINT late NOT NULL late NOT VALID`
        const publication = "FOR TABLE a WITH (publish_generated_columns = stored)"
        const workspace = yield* makeWorkspace(server, { sql, publication })
        const { stdout } = yield* codegen(workspace, "--publication", workspace.publication)
        assert.include(stdout, "twice: Schema.NullOr(Schema.Number), // integer")
        assert.include(stdout, "late: Schema.NullOr(Schema.Number) // integer")
      }),
    { since: 18 }
  )
})
