import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cli from "../src/Cli.ts"
import * as LiveLine from "../src/cli/LiveLine.ts"
import { Output } from "../src/cli/StandardOutput.ts"

/** Runs the command as its user would, without a process around it. */
const run = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  let stdout = ""
  let stderr = ""
  const write = (text: string) => Effect.sync(() => (stdout += text))
  const exitCode = yield* Cli.run(args).pipe(
    Effect.provideService(Output, { isTerminal: false, write, append: write }),
    Effect.provideService(LiveLine.Standard, new LiveLine.LiveLine({ write: (text) => (stderr += text) })),
    Effect.provide(NodeServices.layer)
  )
  return { exitCode, stdout, stderr }
})

/** Where surely nobody listens. */
const nowhere = "postgres://me:SECRET@127.0.0.1:1/shop"

describe("replicant", () => {
  it.live("tells its version, and its help, on standard output", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* run("--version"), { exitCode: 0, stdout: `replicant ${Cli.version}\n`, stderr: "" })
      const help = yield* run("--help")
      assert.strictEqual(help.exitCode, 0)
      for (const name of ["stream", "identify", "slot", "publication", "demo"]) assert.include(help.stdout, name)
      const streamHelp = yield* run("stream", "--help")
      for (const flag of ["--until-lsn", "--snapshot", "--connections", "--rate-limit", "--checkpoint"])
        assert.include(streamHelp.stdout, flag)
    })
  )

  it.live("without a command shows what there is, as a mistake", () =>
    Effect.gen(function* () {
      for (const args of [[], ["slot"], ["publication"]]) {
        const { exitCode, stderr, stdout } = yield* run(...args)
        assert.strictEqual(exitCode, 2)
        assert.strictEqual(stdout, "")
        assert.include(stderr, "SUBCOMMANDS")
      }
    })
  )

  const mistakes: ReadonlyArray<readonly [args: ReadonlyArray<string>, error: RegExp, cure: RegExp]> = [
    [["slto"], /Unknown subcommand "slto"/, /did you mean slot\?/],
    [["stream", "--limt", "3"], /Unrecognized flag: --limt/, /did you mean --limit\?/],
    [["stream", "--limit", "0"], /--limit: "0". Expected a whole number of 1 or more/, /replicant stream --help/],
    [["stream", "--snapshot", "always"], /--snapshot/, /replicant stream --help/],
    [
      ["stream", "--connections", "0"],
      /--connections: "0". Expected a whole number of 1 or more/,
      /replicant stream --help/
    ],
    [["stream", "--until-lsn", "12"], /--until-lsn: "12". Expected an LSN/, /replicant stream --help/],
    [["stream", "--plugin", "test_decoding", "--slot", "s"], /--plugin/, /replicant stream --help/],
    [["stream"], /no slot is named/, /--slot NAME/],
    [["slot", "create"], /Missing required argument: name/, /replicant slot create --help/],
    [["publication", "create", "p"], /no table is named/, /--table TABLE/],
    [["publication", "create", "p", "--table", "t", "--all-tables"], /exclude each other/, /--table/],
    [["demo", "--seconds", "-1"], /--seconds: "-1"/, /replicant demo --help/],
    [["identify", "--url", "mysql://db"], /url: must begin with postgres/, /postgres:\/\/user/],
    [["identify", "postgres://me:SECRET@db/shop"], /positional argument: "postgres:\/\/me:\*\*\*@db/, /--help/]
  ]
  for (const [args, error, cure] of mistakes) {
    it.live(`refuses \`replicant ${args.join(" ").replace("SECRET", "...")}\` in one line, with the cure`, () =>
      Effect.gen(function* () {
        const { exitCode, stderr, stdout } = yield* run(...args)
        const [first, second, ...rest] = stderr.split("\n")
        assert.match(first!, error)
        assert.match(first!, /^error: /)
        assert.match(second!, cure)
        assert.match(second!, /^cure: /)
        assert.deepStrictEqual(rest, [""])
        assert.strictEqual(stdout, "")
        assert.strictEqual(exitCode, 2)
        assert.notInclude(stderr, "SECRET")
      })
    )
  }

  it.live("fails with 1 where nobody listens, and repeats no password", () =>
    Effect.gen(function* () {
      const { exitCode, stderr } = yield* run("identify", "--url", nowhere)
      assert.strictEqual(exitCode, 1)
      assert.match(stderr, /^error: connection to 127.0.0.1:1: nobody listens \(ECONNREFUSED\)\ncure: start PostgreSQL/)
      assert.notInclude(stderr, "SECRET")
    })
  )

  it.live(
    "ends a probe that could not look with 3, whatever kept it from that, and not as if it had found something",
    () =>
      Effect.gen(function* () {
        for (const args of [
          ["--slot", "orders", "--url", nowhere],
          ["--slot", "orders", "--url", "mysql://db"],
          ["--slot", "orders", "--warn", "3 parsecs"],
          []
        ]) {
          const { exitCode, stderr, stdout } = yield* run("lag", ...args)
          assert.strictEqual(exitCode, 3, args.join(" "))
          assert.match(stderr, /^error: .*\ncure: /)
          assert.strictEqual(stdout, "")
          assert.notInclude(stderr, "SECRET")
        }
      })
  )

  it.live("tells errors as one JSON object with --json, wherever it stands", () =>
    Effect.gen(function* () {
      for (const args of [
        ["--json", "identify", "--url", nowhere],
        ["identify", "--url", nowhere, "--json"]
      ]) {
        const { stderr } = yield* run(...args)
        assert.deepInclude(JSON.parse(stderr), { level: "error", error: "ConnectionError" })
      }
      assert.deepInclude(JSON.parse((yield* run("stream", "--json", "--nope")).stderr), { error: "UsageError" })
    })
  )
})
