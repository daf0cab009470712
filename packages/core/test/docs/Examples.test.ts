/** The check of examples, held against mistakes that are planted. That ours have none is `npm run types`. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { allExamples, blocksOf, check, examplesOf, toldOf } from "../../../../scripts/checkExamples.ts"

const page = `# A page

\`\`\`sh
npm ci
\`\`\`

\`\`\`ts
import { Lsn } from "@replicant/core"

export const lsn: string = Lsn.zero
\`\`\`
`

const source = `/**
 * Doubles.
 *
 * @example
 * double(2) // => 4
 *
 * Not for odd numbers.
 */
export const double = (n: number): number => n * 2

export interface A {
  /**
   * @example
   * const b = yield* nothing
   */
  readonly b: number
}
`

describe("the check of examples", () => {
  it("finds every block of a page and every example of a source, on the lines where they stand", () => {
    const blocks = blocksOf("docs/a.md", page)
    assert.deepStrictEqual(blocks.problems, [])
    assert.deepStrictEqual(
      blocks.examples.map(({ code, line }) => [line, code.split("\n")[9]]),
      [[7, "export const lsn: string = Lsn.zero"]]
    )
    const { examples } = examplesOf("src/A.ts", source, [
      { from: "one", names: ["double"] },
      { from: "other", names: ["double", "nothing"] }
    ])
    assert.deepStrictEqual(
      examples.map(({ code }) => code.trim().split("\n")),
      [
        ["double(2) // => 4", ["double"], ["nothing"]],
        ["const b = yield* nothing", ["double"], ["nothing"]]
      ].map(([line, one, other]) => [
        "export const example = async function* () {",
        line as string,
        "}",
        `import { ${one} } from "one"`,
        `import { ${other} } from "other"`
      ])
    )
    assert.deepStrictEqual(
      examples.map(({ code }) => code.split("\n").findIndex((line) => /double\(2\)|yield\*/.test(line)) + 1),
      [5, 14]
    )
  })

  it("leaves no block of code out, whatever is written behind its fence", () => {
    for (const info of ["ts no-check", "typescript", "js", "TS"]) {
      const { problems } = blocksOf("docs/a.md", page.replace("```ts", `\`\`\`${info}`))
      assert.deepStrictEqual(problems, ["docs/a.md:7: a block of code is `ts` and nothing else"])
    }
    assert.lengthOf(blocksOf("docs/a.md", "```ts\nexport {}\n").problems, 1)
  })

  it("tells of a mistake where it stands in the page", { timeout: 60_000 }, () => {
    // Within the checkout, from where the packages are found.
    const cache = Path.join(import.meta.dirname, "../../../../node_modules/.cache")
    Fs.mkdirSync(cache, { recursive: true })
    const directory = Fs.mkdtempSync(Path.join(cache, "planted-"))
    try {
      const told = check(blocksOf("docs/a.md", page).examples, directory)
      assert.lengthOf(told, 1)
      assert.match(told[0]!, /^docs\/a\.md:10: TS2322: Type 'Lsn' is not assignable to type 'string'/)
    } finally {
      Fs.rmSync(directory, { recursive: true, force: true })
    }
  })

  it("passes on what else the compiler says", () => {
    assert.deepStrictEqual(toldOf(`docs/a.md.7.ts(10,3): error TS1: a${Os.EOL}    more\n\nerror TS2: b\n`), [
      "docs/a.md:10: TS1: a",
      "    more",
      "error TS2: b"
    ])
  })

  it("finds the examples of the README, of the pages, of the packages' READMEs and of the packages", () => {
    const { examples, problems } = allExamples()
    assert.deepStrictEqual(problems, [])
    for (const place of [
      "README.md",
      "docs/tables.md",
      "packages/node/README.md",
      "packages/core/src/",
      "packages/node/src/",
      "packages/nats/README.md",
      "packages/nats/src/",
      "packages/redis/README.md",
      "packages/redis/src/"
    ]) {
      assert.isTrue(
        examples.some(({ file }) => file.startsWith(place)),
        place
      )
    }
  })
})
