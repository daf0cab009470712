/** docs/faults.md, held against the tests: every fault has one, and every id in a title is a fault that is listed. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../../..", import.meta.url))

interface Fault {
  readonly id: string
  readonly tests: ReadonlyArray<string>
}

const faults: ReadonlyArray<Fault> = Fs.readFileSync(Path.join(root, "docs/faults.md"), "utf8")
  .split("\n")
  .flatMap((line) => {
    const id = /^\| ([A-Z][0-9]+) \|/.exec(line)?.[1]
    const tests = [...line.matchAll(/\]\(\.\.\/([^)]+\.test\.ts)\)/g)].map(([, path]) => path!)
    return id === undefined ? [] : [{ id, tests }]
  })

const testFiles = ["test", "packages/core/test", "packages/node/test"].flatMap((directory) =>
  Fs.readdirSync(Path.join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".test.ts"))
    .map((path) => Path.posix.join(directory, path.replaceAll("\\", "/")))
)

/**
 * Ids in brackets before a title, those that `fault` and its kin are given, and those at the head of a row of cases.
 */
const idsIn = (text: string): ReadonlyArray<string> =>
  [
    ...text.matchAll(
      /["`]\[([A-Z]\d+(?:, [A-Z]\d+)*)\] |\b(?:fault|faultTitle|test|cases)\(\s*(\[[^\]]*\]|"[A-Z]\d+")|^\s+\[\s*"([A-Z]\d{1,2})",/gm
    )
  ].flatMap(([, inTitle = "", given = "", inCase = ""]) => `${inTitle} ${given} ${inCase}`.match(/[A-Z]\d+/g) ?? [])

/** The conformance suite: its titles bear cases of its own instead. */
const isConformance = (path: string): boolean => path.startsWith("test/conformance/")

describe("docs/faults.md", () => {
  it("lists 108 faults, each once and with the tests that hold it", () => {
    assert.lengthOf(faults, 108)
    assert.lengthOf([...new Set(faults.map(({ id }) => id))], 108)
    for (const { id, tests } of faults) {
      assert.isNotEmpty(tests, id)
      for (const path of tests) assert.isTrue(Fs.existsSync(Path.join(root, path)), `${id}: ${path}`)
    }
  })

  it("links no file without the fault in a title", () => {
    const nominal = faults.flatMap(({ id, tests }) =>
      tests
        .filter((path) => !isConformance(path) && !idsIn(Fs.readFileSync(Path.join(root, path), "utf8")).includes(id))
        .map((path) => `${id}: ${path}`)
    )
    assert.deepStrictEqual(nominal, [])
  })

  it("links each file whose titles bear the fault's id", () => {
    const linked = new Map(faults.map(({ id, tests }) => [id, new Set(tests)]))
    const missing = testFiles.flatMap((path) =>
      idsIn(Fs.readFileSync(Path.join(root, path), "utf8"))
        .filter((id) => linked.get(id)?.has(path) !== true)
        .map((id) => `${id}: ${path}`)
    )
    assert.deepStrictEqual([...new Set(missing)], [])
  })
})
