import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { scenes } from "../scripts/exampleScenes.ts"
import { packages } from "../scripts/packages.ts"
import { houses, importsOf, loadedWith, type Sources, stripped, violations } from "./support/architecture.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Every TypeScript file below a directory of the checkout. */
const read = (directory: string): Sources => {
  const absolute = Path.join(root, directory)
  if (!Fs.existsSync(absolute)) return new Map()
  const names = Fs.readdirSync(absolute, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"))
  return new Map(
    names.map((name) => {
      const path = `${directory}/${name.split(Path.sep).join("/")}`
      return [path, Fs.readFileSync(Path.join(root, path), "utf8")]
    })
  )
}

/** What the checker says of one source at that path. */
const check = (path: string, source: string): ReadonlyArray<string> => violations(new Map([[path, source]]))

describe("architecture", () => {
  it("every module keeps to its floor, its package and its words", () => {
    const sources = new Map([...packages.flatMap((name) => [...read(`packages/${name}/src`)]), ...read("examples")])
    assert.isAbove(sources.size, 20)
    assert.isAbove([...sources.values()].flatMap(importsOf).length, 100)
    assert.deepStrictEqual(violations(sources), [])
  })

  it("no entry and no command loads an HTTP server before somebody listens", () => {
    const sources = new Map(packages.flatMap((name) => [...read(`packages/${name}/src`)]))
    for (const entry of ["node/src/bin.ts", "node/src/index.ts", "core/src/index.ts", "core/src/operations.ts"]) {
      const loaded = loadedWith(`packages/${entry}`, sources)
      assert.isAbove(loaded.size, 50, entry)
      assert.deepStrictEqual(
        [...loaded].filter((name) => /http/i.test(name)),
        [],
        entry
      )
    }
    assert.include([...loadedWith("packages/node/src/cli/Serve.ts", sources)], "node:http")
  })

  for (const path of ["package-lock.json", "test/pack/tools/package-lock.json"]) {
    it(`${path} names no host, so that it serves every registry`, () => {
      const lock = Fs.readFileSync(Path.join(root, path), "utf8")
      assert.include(lock, '"integrity": "sha512-')
      assert.notMatch(lock, /"resolved": "\w+:\/\//)
    })
  }

  it("no comment of a source names a file that is not there", () => {
    let count = 0
    for (const package_ of packages) {
      const sources = read(`packages/${package_}/src`)
      const everywhere = [...read("packages/core/src").keys(), ...sources.keys()]
      const named = [...sources].flatMap(([path, text]) =>
        [...text.matchAll(/^ *(?:\/?\*|\/\/).*$/gm)].flatMap(([comment]) =>
          [...comment.matchAll(/(?<![\w/.-])(?:[a-z0-9]+\/)*[A-Z]\w+\.ts\b/g)].map(([file]) => ({ path, file }))
        )
      )
      count += named.length
      const wrong = named.filter(({ file }) => !everywhere.some((path) => path.endsWith(`/${file}`)))
      assert.deepStrictEqual(wrong, [])
    }
    assert.isAbove(count, 6)
  })

  it("docs/architecture.md draws the rooms as they are", () => {
    const page = Fs.readFileSync(Path.join(root, "docs/architecture.md"), "utf8")
    for (const [house, floors] of houses) {
      const [, table = ""] = page.split(`\`${house.slice(0, -1)}\`, from the top:\n\n`)
      const rows = table.split("\n\n")[0]!.split("\n").slice(2)
      const drawn = rows.map((row) => [...row.split("|")[1]!.matchAll(/`([^`]+)`/g)].map(([, room]) => room!).sort())
      assert.deepStrictEqual(drawn, floors.map((rooms) => [...rooms].sort()).reverse())
    }
  })

  it("npm run example knows every example there is", () => {
    const names = [...read("examples").keys()].map((path) => Path.basename(path, ".ts"))
    assert.deepStrictEqual(Object.keys(scenes).toSorted(), names.toSorted())
  })

  it("no file of ours tells whose machine it was written on", () => {
    const texts = ["packages", "test", "examples", "scripts", "bench"].flatMap((directory) => [...read(directory)])
    const personal = texts.filter(([, text]) => /\/(?:home|Users)\/\w|\bfile:\/\/\/\w/.test(text))
    assert.deepStrictEqual(
      personal.map(([path]) => path),
      []
    )
  })
})

describe("the checker", () => {
  const planted: ReadonlyArray<readonly [what: string, path: string, source: string, finding: RegExp]> = [
    [
      "an import from the floor above",
      "packages/core/src/protocol/A.ts",
      `import { B } from "../change/B.ts"`,
      /change is not below protocol/
    ],
    [
      "a type import from above",
      "packages/core/src/Lsn.ts",
      `import type { B } from "./protocol/B.ts"`,
      /protocol is not below Lsn/
    ],
    [
      "a re-export from above",
      "packages/core/src/change/A.ts",
      `export * from "../replication/B.ts"`,
      /replication is not below change/
    ],
    [
      "an import between plugins",
      "packages/core/src/pgoutput/A.ts",
      `import { B } from "../wal2json/B.ts"`,
      /wal2json is not below pgoutput/
    ],
    [
      "the index imported from below",
      "packages/core/src/values/A.ts",
      `import { B } from "../index.ts"`,
      /index.ts is not below/
    ],
    [
      "an import over several lines",
      "packages/core/src/values/A.ts",
      `import {\n  type B,\n  C\n} from "../change/B.ts"`,
      /change is not below/
    ],
    [
      "an import from a sibling room",
      "packages/core/src/copying/A.ts",
      `import { B } from "../rereading/B.ts"`,
      /rereading is not below copying/
    ],
    [
      "a room of node that imports the terminal's",
      "packages/node/src/copy/A.ts",
      `import { B } from "../cli/B.ts"`,
      /cli is not below copy/
    ],
    [
      "a room of node that imports its neighbour",
      "packages/node/src/testing/A.ts",
      `import type { B } from "../codegen/B.ts"`,
      /codegen is not below testing/
    ],
    [
      "copy that imports its neighbour codegen",
      "packages/node/src/copy/A.ts",
      `import type { B } from "../codegen/B.ts"`,
      /codegen is not below copy/
    ],
    ["a file that lies flat in node", "packages/node/src/A.ts", "export const a = 1", /stands on no floor: A.ts/],
    ["a module on no floor", "packages/core/src/extra/A.ts", "export const a = 1", /stands on no floor: extra/],
    ["pg in core", "packages/core/src/replication/A.ts", `import pg from "pg"`, /imports pg: core has only effect/],
    ["node in core", "packages/core/src/replication/A.ts", `import "node:net"`, /imports node:net/],
    [
      "a dynamic import in core",
      "packages/core/src/replication/A.ts",
      `const net = import("node:net")`,
      /imports node:net/
    ],
    [
      "effects below the server",
      "packages/core/src/change/A.ts",
      `import type * as Effect from "effect/Effect"`,
      /below server nothing runs/
    ],
    ["the barrel of effect", "packages/node/src/pg/A.ts", `import { Effect } from "effect"`, /one by one/],
    [
      "a path into another package",
      "packages/node/src/pg/A.ts",
      `import { B } from "../../../core/src/B.ts"`,
      /by its name/
    ],
    ["a path from an example", "examples/a.ts", `import { B } from "../packages/core/src/index.ts"`, /by its name/],
    [
      "a private module by name",
      "packages/node/src/pg/A.ts",
      `import { B } from "@replicant/core/src/B.ts"`,
      /not public/
    ],
    ["an import without .ts", "packages/node/src/pg/A.ts", `import { B } from "./B.js"`, /end in .ts/],
    ["a drawer for anything", "packages/node/src/pg/utils.ts", "export const a = 1", /one idea/],
    [
      "a directory for anything",
      "packages/core/src/protocol/helpers/A.ts",
      "export const a = 1",
      /what its modules do/
    ],
    ["a module too long", "packages/node/src/pg/A.ts", `${"\n".repeat(350)}export const a = 1\n`, /351 lines/],
    ["an effect run", "packages/node/src/pg/A.ts", "Effect.runFork(program)", /only bin.ts does/],
    ["Buffer in core", "packages/core/src/protocol/A.ts", "const a = Buffer.from([])", /says Buffer/],
    ["console in core", "packages/core/src/protocol/A.ts", "console.log(1)", /says console/],
    ["the clock in core", "packages/core/src/protocol/A.ts", "const a = Date.now()", /says Date.now/],
    [
      "one plugin told from the others by its name",
      "packages/core/src/stream/A.ts",
      `const a = plugin.name !== "pgoutput"`,
      /says which plugin it is/
    ],
    ["async in core", "packages/core/src/protocol/A.ts", "const a = async () => 1", /says async/],
    [
      "a word within a regular expression's neighbour",
      "packages/core/src/protocol/A.ts",
      `const a = /["'/]/g, b = console`,
      /says console/
    ]
  ]
  for (const [what, path, source, finding] of planted) {
    it(`catches ${what}`, () => {
      const found = check(path, source)
      assert.lengthOf(found, 1, found.join("\n"))
      assert.match(found[0]!, finding)
    })
  }

  it("catches modules that need each other, also if for types alone", () => {
    const circle = (kind: string): Sources =>
      new Map([
        ["packages/node/src/pg/A.ts", `import { b } from "./B.ts"`],
        ["packages/node/src/pg/B.ts", `import ${kind}{ a } from "./A.ts"`]
      ])
    assert.deepStrictEqual(violations(circle("")), [
      "packages/node/src/pg/A.ts: imports itself by way of packages/node/src/pg/B.ts, packages/node/src/pg/A.ts"
    ])
    assert.deepStrictEqual(violations(circle("type ")), violations(circle("")))
  })

  it("lets pass what comments and strings say, and what the rules allow", () => {
    const core = `/* console, import x from "pg" */\nimport * as Schema from "effect/Schema"\n// Date.now\nconst a = "Buffer"`
    assert.deepStrictEqual(check("packages/core/src/change/A.ts", core), [])
    assert.deepStrictEqual(
      check("packages/core/src/change/A.ts", `import { B } from "./B.ts"\nimport { L } from "../Lsn.ts"`),
      []
    )
    assert.deepStrictEqual(check("packages/node/src/bin.ts", "NodeRuntime.runMain(program)"), [])
    assert.deepStrictEqual(check("examples/a.ts", `import { Effect } from "effect"\nEffect.runFork(a)`), [])
    for (const entry of ["core", "core/driver", "core/testing"])
      assert.deepStrictEqual(check("packages/node/src/pg/A.ts", `import { B } from "@replicant/${entry}"`), [])
  })

  it("blanks comments and strings where they stand", () => {
    assert.strictEqual(stripped(`a // b\n"c" /* d\n */ e`, "comments"), `a     \n"c"     \n    e`)
    assert.strictEqual(stripped("a = `b` + 'c' / 2 / d", "everything"), "a =     +     / 2 / d")
  })
})
