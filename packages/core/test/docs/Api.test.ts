/** docs/api.md, held against the sources: a public name that comes or goes is seen in review. */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { exportsOf } from "../../../../scripts/exportsOf.ts"
import {
  allPublicNames,
  apiPage,
  apiPath,
  entries,
  firstSentence,
  type PublicName,
  publicNames
} from "../../../../scripts/publicNames.ts"

/** How many names `@replicant/core` may have at its top: a user looks for one among them. */
const mostNames = 75

const sources: Readonly<Record<string, string>> = {
  "src/index.ts": `/** The entry. */
export * from "./A.ts"
export { b, type C as D } from "./B.ts"
export * as E from "./E.ts"
`,
  "src/A.ts": `/** A type. And more. */
export interface A {}
export const A: A = {}
const text = \`
export const no = 1
\`
// export const neither = 1
`,
  "src/B.ts": `import { c } from "./E.ts"
/** A value. */
export const b = 1
/**
 * The third: see {@link b}.
 *
 * @example
 * C
 */
export class C {}
export { c }
`,
  "src/E.ts": `/** The public module \`E\`: all of it. */
/** A function. */
export function* c(): void {}
`
}

const named = ({ doc, members, name }: PublicName): unknown => [
  name,
  doc === undefined ? undefined : firstSentence(doc),
  ...(members === undefined ? [] : [members.map(named)])
]

describe("docs/api.md", () => {
  it("is what the sources say: npm run api writes it anew", () => {
    assert.strictEqual(Fs.readFileSync(apiPath, "utf8"), apiPage(allPublicNames()))
  })

  it(`has no more than ${mostNames} names at the top of @replicant/core`, () => {
    assert.isAtMost(allPublicNames().get("@replicant/core")!.length, mostNames)
  })

  it("has every entry, and a line on every name in it", () => {
    assert.includeMembers(
      [...entries().keys()],
      ["core", "core/driver", "core/operations", "core/sink", "core/testing", "node", "node/testing"].map(
        (entry) => `@replicant/${entry}`
      )
    )
    for (const [entry, names] of allPublicNames()) {
      assert.isNotEmpty(names)
      for (const name of names.flatMap((name) => [name, ...(name.members ?? [])])) {
        assert.isAbove(firstSentence(name.doc ?? "").length, 5, `${entry}: ${name.name}`)
      }
    }
  })

  it("has the names that a program finds at run time", { timeout: 60_000 }, async () => {
    for (const [entry, path] of entries()) {
      const found = Object.keys(await import(new URL(`../../../../${path}`, import.meta.url).href))
      const listed = new Set(
        allPublicNames()
          .get(entry)!
          .map(({ name }) => name)
      )
      assert.isNotEmpty(found)
      assert.deepStrictEqual(
        found.filter((name) => !listed.has(name)),
        []
      )
    }
  })
})

describe("the reader of exports", () => {
  it("follows stars, names and namespaces, and takes no text for a statement", () => {
    const read = (path: string) => sources[path]!
    assert.deepStrictEqual(publicNames("src/index.ts", read).map(named), [
      ["A", "A type."],
      ["D", "The third: see `b`."],
      ["E", "All of it.", [["c", "A function."]]],
      ["b", "A value."]
    ])
    assert.deepStrictEqual(publicNames("src/B.ts", read).map(named), [
      ["C", "The third: see `b`."],
      ["b", "A value."],
      ["c", "A function."]
    ])
  })

  it("knows types from values", () => {
    assert.deepStrictEqual(
      exportsOf(`export type { A } from "./A.ts"\nexport type B = 1\nexport abstract class C {}`),
      [
        { kind: "named", name: "A", local: "A", from: "./A.ts" },
        { kind: "declared", name: "B", isType: true, doc: undefined },
        { kind: "declared", name: "C", isType: false, doc: undefined }
      ]
    )
  })
})
