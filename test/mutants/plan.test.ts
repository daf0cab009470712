/** What `npm run mutants` is told is true of this checkout, and what it says follows from what became of the mutants. */
import { existsSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { collapse, judge, type Mutant } from "./judge.ts"
import { plan } from "./plan.ts"
import survivors from "./survivors.json" with { type: "json" }

describe("the plan of mutants", () => {
  it("names modules and tests that are there", () => {
    const paths = plan.flatMap(({ file, tests }) => [file, ...tests])
    assert.deepStrictEqual(
      paths.filter((path) => !existsSync(path)),
      []
    )
  })

  it("explains lines that are there", () => {
    const lines = new Map(plan.map(({ file }) => [file, readFileSync(file, "utf8").split("\n").map(collapse)]))
    const stale = survivors.filter(({ file, line }) => lines.get(file)?.includes(line) !== true)
    assert.deepStrictEqual(
      stale.map(({ file, line }) => `${file}: ${line}`),
      []
    )
  })

  it("gives a reason for each, in a sentence", () => {
    for (const { becomes, why } of survivors) {
      assert.isNotEmpty(becomes)
      assert.match(why, /^[A-Z`].{20,}[.]$/s)
    }
  })
})

describe("judge", () => {
  const source = "const a = 1\n  if (a > 0)  return true\nconst f = () => {\n  g()\n}\n"

  const mutant = (
    status: string,
    line: number,
    from: number,
    replacement: string,
    to: number,
    last = line
  ): Mutant => ({
    status,
    replacement,
    location: { start: { line, column: from }, end: { line: last, column: to } }
  })
  const turned = mutant("Survived", 2, 7, "a >= 0", 12)
  const emptied = mutant("NoCoverage", 3, 17, "{}", 2, 5)
  const noticed = Array.from({ length: 18 }, (_, index) => mutant(index === 0 ? "Timeout" : "Killed", 1, 11, "2", 12))

  const explained = [
    { file: "a.ts", line: "if (a > 0) return true", becomes: ["if (a >= 0) return true"], why: "It is never 0." },
    { file: "a.ts", line: "const f = () => {", becomes: ["const f = () => {}"], why: "Nobody calls it." }
  ]

  it("is content where all that no test noticed is explained", () => {
    const verdict = judge("a.ts", source, [...noticed, turned, emptied, mutant("Ignored", 1, 1, "", 2)], explained)
    assert.deepStrictEqual(verdict, { summary: "a.ts: 90.0 % (18 of 20), 2 explained", problems: [] })
  })

  it("tells what is not explained, as the line is and as it becomes", () => {
    const { problems } = judge("a.ts", source, [...noticed, turned], [])
    assert.deepStrictEqual(problems, [
      "  2: no test notices that\n    if (a > 0) return true\n    if (a >= 0) return true"
    ])
    assert.lengthOf(judge("b.ts", source, [...noticed, turned], explained).problems, 1, "of another module")
    const twice = judge("a.ts", source, [...noticed, turned, turned], explained.slice(0, 1))
    assert.lengthOf(twice.problems, 1, "an explanation is of one")
  })

  it("tells what is explained and no survivor, and too low a score", () => {
    const { problems } = judge("a.ts", source, [...noticed.slice(1), turned, emptied], explained.slice(0, 1))
    assert.deepStrictEqual(problems, [
      "  3: no test notices that\n    const f = () => {\n    const f = () => {}",
      "  fewer than 90 % are noticed"
    ])
    assert.deepStrictEqual(judge("a.ts", source, [...noticed, turned], explained).problems, [
      "  explained in survivors.json, and no survivor:\n    const f = () => {\n    const f = () => {}"
    ])
  })
})
