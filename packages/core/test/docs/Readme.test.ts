/** What the documentation says of the code, held against the code. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { packages } from "../../../../scripts/packages.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Errors from "../../src/ReplicationError.ts"

const root = fileURLToPath(new URL("../../../..", import.meta.url))
const read = (path: string) => Fs.readFileSync(Path.join(root, path), "utf8")

const pages = [
  ...["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"],
  ...packages.map((name) => `packages/${name}/README.md`),
  ...["docs", "docs/decisions", "docs/guides"].flatMap((directory) =>
    Fs.readdirSync(Path.join(root, directory))
      .filter((name) => name.endsWith(".md"))
      .map((name) => `${directory}/${name}`)
  )
]

/** One error of each tag; a tag that is missing here, or too many, does not compile. */
const samples: { readonly [Tag in Errors.ReplicationError["_tag"]]: Extract<Errors.ReplicationError, { _tag: Tag }> } =
  {
    ConnectionError: new Errors.ConnectionError({ reason: "Reset", detail: "" }),
    WalReceiverTimeout: new Errors.WalReceiverTimeout({ receiverTimeout: 30_000 }),
    AuthenticationFailed: new Errors.AuthenticationFailed({ sqlState: "28P01", detail: "" }),
    PermissionDenied: new Errors.PermissionDenied({ stage: "Connect", detail: "" }),
    LogicalDecodingDisabled: new Errors.LogicalDecodingDisabled({ walLevel: "replica" }),
    SlotInUse: new Errors.SlotInUse({ slot: "s" }),
    SlotNotFound: new Errors.SlotNotFound({ slot: "s" }),
    SlotAlreadyExists: new Errors.SlotAlreadyExists({ slot: "s" }),
    SlotInvalidated: new Errors.SlotInvalidated({ slot: "s", reason: "wal_removed" }),
    SlotAheadOfCheckpoint: new Errors.SlotAheadOfCheckpoint({
      slot: "s",
      checkpoint: Lsn.zero,
      confirmedFlushLsn: Lsn.zero
    }),
    SlotCreationBlocked: new Errors.SlotCreationBlocked({ slot: "s", transactions: [] }),
    SlotMismatch: new Errors.SlotMismatch({ slot: "s", property: "plugin", expected: "pgoutput", found: "wal2json" }),
    PublicationNotFound: new Errors.PublicationNotFound({ publications: ["p"] }),
    PublicationMismatch: new Errors.PublicationMismatch({ publication: "p", problem: "" }),
    InvalidOption: new Errors.InvalidOption({ option: "slot", problem: "" }),
    UnsupportedByServer: new Errors.UnsupportedByServer({
      feature: "f",
      serverVersion: 140_000,
      neededVersion: 160_000
    }),
    SystemMismatch: new Errors.SystemMismatch({ property: "systemId", expected: "1", found: "2" }),
    StandbyBehind: new Errors.StandbyBehind({ expected: Lsn.zero, found: Lsn.zero }),
    DecodeError: new Errors.DecodeError({ problem: "", offset: 0 }),
    TransactionTooLarge: new Errors.TransactionTooLarge({ xid: 1, commitLsn: Lsn.zero, bytes: 2, maxBytes: 1 }),
    SpillFailed: new Errors.SpillFailed({ during: "write", problem: "" }),
    ServerError: new Errors.ServerError({
      stage: "Streaming",
      severity: "FATAL",
      sqlState: "57P01",
      serverMessage: ""
    })
  }

/** The rows of a page's error table: tag, and the cell under "Retried". */
const errorRows = (page: string): ReadonlyArray<readonly [tag: string, retried: string]> => {
  const lines = read(page).split("\n")
  const header = lines.findIndex((line) => line.startsWith("| `_tag` |"))
  assert.isAtLeast(header, 0, `${page} has an error table`)
  const cells = (line: string) => line.split("|").map((cell) => cell.trim())
  const column = cells(lines[header]!).indexOf("Retried")
  const rows = lines.slice(header + 2)
  return rows
    .slice(
      0,
      rows.findIndex((line) => !line.startsWith("|"))
    )
    .map((line) => {
      const found = cells(line)
      return [found[1]!.replaceAll("`", ""), found[column]!]
    })
}

/** Headings as a page's anchors. */
const anchors = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
    match[1]!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(/\s/g, "-")
  )

const withoutCode = (text: string) => text.replaceAll(/^```[\s\S]*?^```/gm, "")

/** Where each relative link of a page leads to: a file, and an anchor in it. */
const links = (page: string) =>
  [...withoutCode(read(page)).matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => match[1]!)
    .filter((target) => !/^https?:/.test(target))
    .map((target) => {
      const [file = "", anchor] = target.split("#")
      return { target, path: file === "" ? page : Path.posix.join(Path.posix.dirname(page), file), anchor }
    })

describe("the README", () => {
  it("shows the program that is in examples, to the letter", () => {
    const blocks = [...read("README.md").matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((match) => match[1])
    assert.include(blocks, read("examples/print-changes.ts"))
  })

  it("promises twenty lines and keeps to it, but for imports", () => {
    const lines = read("examples/print-changes.ts").split("\n")
    assert.isAtMost(lines.filter((line) => line !== "" && !line.startsWith("import")).length, 20)
  })

  it("names only npm scripts that exist", () => {
    const scripts = JSON.parse(read("package.json")).scripts as Record<string, string>
    const named = [...read("README.md").matchAll(/npm (?:run )?(start|test|check|\w+(?=`))/g)].map((match) => match[1]!)
    assert.includeMembers(named, ["start", "test", "check"])
    for (const name of named) assert.property(scripts, name)
  })
})

describe("a guide", () => {
  const guides = pages.filter((page) => page.startsWith("docs/guides/"))

  for (const guide of guides) {
    it(`${Path.posix.basename(guide)} holds a program that the tests run, word for word`, () => {
      const page = read(guide)
      const [, example] = /npm run example ([\w-]+)`/.exec(page) ?? assert.fail("it names none")
      assert.include(page, `\`\`\`ts\n${read(`examples/${example}.ts`)}\`\`\``)
      assert.include(read("test/Examples.test.ts") + read("test/LivePage.test.ts"), `describe("${example}.ts"`)
    })
  }

  it("is there for each of six things that people build", () => {
    assert.lengthOf(guides, 6)
    for (const guide of guides) assert.include(read("README.md"), guide)
  })
})

describe("the documentation", () => {
  for (const page of ["docs/errors.md"]) {
    it(`${page} lists every error there is, in the order of the union, and no other`, () => {
      assert.deepStrictEqual(
        errorRows(page).map(([tag]) => tag),
        Object.keys(samples)
      )
    })

    it(`${page} says of each error whether it is retried`, () => {
      for (const [tag, retried] of errorRows(page)) {
        const { isRetryable } = samples[tag as keyof typeof samples]
        assert.match(retried, tag === "ServerError" ? /^(yes for|some)/ : isRetryable ? /^yes/ : /^no$/, tag)
      }
    })
  }

  it("knows every error class that is exported", () => {
    const classes = Object.entries(Errors).filter(
      ([, value]) => typeof value === "function" && value.prototype instanceof Error
    )
    assert.sameMembers(
      classes.map(([name]) => name),
      Object.keys(samples)
    )
  })

  it("has no link that leads nowhere", () => {
    const broken = pages.flatMap((page) =>
      links(page)
        .filter(({ anchor, path }) => {
          if (!Fs.existsSync(Path.join(root, path))) return true
          return anchor !== undefined && !anchors(read(path)).includes(anchor)
        })
        .map(({ target }) => `${page}: ${target}`)
    )
    assert.deepStrictEqual(broken, [])
  })

  it("cites as proof only tests that exist", () => {
    for (const page of ["docs/delivery.md", "docs/versions.md"]) {
      const cited = [...read(page).matchAll(/\]\(([^)]+\.test\.ts)\): "([^"]+)"/g)]
      assert.isAbove(cited.length, 10)
      for (const [, file, title] of cited) {
        // Ids of faults may stand before a title, in either place.
        const withoutIds = (text: string) => text.replaceAll(/"\[[A-Z0-9, ]+\] /g, '"')
        assert.include(withoutIds(read(Path.posix.join("docs", file!))), withoutIds(`"${title}"`))
      }
    }
  })

  it("numbers its decisions without a gap, and titles each by its number", () => {
    const decisions = pages.filter((page) => page.startsWith("docs/decisions/")).sort()
    decisions.forEach((page, index) => {
      assert.match(page, new RegExp(`/${String(index + 1).padStart(4, "0")}-[a-z0-9-]+\\.md$`))
      assert.match(read(page), new RegExp(`^# ${index + 1}\\. `))
    })
  })
})
