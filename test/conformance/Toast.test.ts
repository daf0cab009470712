/** TOAST: values stored out of line that an update left alone, which the server does not send. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { record, scenario } from "../support/Conformance.ts"

/** EXTERNAL: not compressed, so that a few kilobytes are surely stored out of line. */
const table = `
  CREATE TABLE t (a int PRIMARY KEY, n int, big text, big2 text);
  ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER big2 SET STORAGE EXTERNAL`

const statements = [
  "INSERT INTO t VALUES (1, 1, repeat('x', 5000), repeat('y', 6000))",
  "UPDATE t SET n = 2",
  "UPDATE t SET big = repeat('z', 5000)",
  "UPDATE t SET a = 2",
  "UPDATE t SET big2 = NULL",
  "UPDATE t SET big = big",
  "DELETE FROM t"
]

describe("TOAST", () => {
  scenario(
    "toast-unchanged",
    "lists a value that was left alone as unchanged, which is neither null nor empty",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, { sql: table })
        yield* recorder.run(...statements)
        const [insert, ...rest] = [
          "I t{a=1,n=1,big=x*5000,big2=y*6000}",
          "U t N{a=1,n=2,~big,~big2}",
          "U t N{a=1,n=2,big=z*5000,~big2}",
          "U t K{a=1} N{a=2,n=2,~big,~big2}",
          "U t N{a=2,n=2,~big,big2=null}",
          "U t N{a=2,n=2,~big,big2=null}",
          "D t K{a=2}"
        ] as const
        const changes = yield* recorder.expect(insert, ...rest)
        yield* recorder.expectRaw(["R t(a*,n,big,big2) ri=d", insert], ...rest)
        const updates = changes.filter((change) => change._tag === "Update")
        assert.deepStrictEqual(
          updates.map(({ row, unchanged }) => ({ sent: Object.keys(row), unchanged })),
          [
            { sent: ["a", "n"], unchanged: ["big", "big2"] },
            { sent: ["a", "n", "big"], unchanged: ["big2"] },
            { sent: ["a", "n"], unchanged: ["big", "big2"] },
            { sent: ["a", "n", "big2"], unchanged: ["big"] },
            { sent: ["a", "n", "big2"], unchanged: ["big"] }
          ]
        )
      })
  )

  scenario("toast-full", "takes a value that was left alone from the whole old row under FULL", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: `${table}; ALTER TABLE t REPLICA IDENTITY FULL` })
      yield* recorder.run(...statements)
      const first = "I t{a=1,n=1,big=x*5000,big2=y*6000}"
      const last = "D t O{a=2,n=2,big=z*5000,big2=null}"
      const changes = yield* recorder.expect(
        first,
        "U t O{a=1,n=1,big=x*5000,big2=y*6000} N{a=1,n=2,big=x*5000,big2=y*6000}",
        "U t O{a=1,n=2,big=x*5000,big2=y*6000} N{a=1,n=2,big=z*5000,big2=y*6000}",
        "U t O{a=1,n=2,big=z*5000,big2=y*6000} N{a=2,n=2,big=z*5000,big2=y*6000}",
        "U t O{a=2,n=2,big=z*5000,big2=y*6000} N{a=2,n=2,big=z*5000,big2=null}",
        "U t O{a=2,n=2,big=z*5000,big2=null} N{a=2,n=2,big=z*5000,big2=null}",
        last
      )
      assert.isTrue(changes.every((change) => change._tag !== "Update" || change.unchanged.length === 0))
      yield* recorder.expectRaw(
        ["R t(a*,n*,big*,big2*) ri=f", first],
        "U t O{a=1,n=1,big=x*5000,big2=y*6000} N{a=1,n=2,~big,~big2}",
        "U t O{a=1,n=2,big=x*5000,big2=y*6000} N{a=1,n=2,big=z*5000,~big2}",
        "U t O{a=1,n=2,big=z*5000,big2=y*6000} N{a=2,n=2,~big,~big2}",
        "U t O{a=2,n=2,big=z*5000,big2=y*6000} N{a=2,n=2,~big,big2=null}",
        "U t O{a=2,n=2,big=z*5000,big2=null} N{a=2,n=2,~big,big2=null}",
        last
      )
    })
  )
})
