/** What is drawn on a terminal of some size. */
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError } from "@replicant/core"
import type { SlotOverview } from "@replicant/core/operations"
import { Result } from "effect"
import { withColor, withoutColor } from "../../src/cli/ChangeText.ts"
import { displayWidth } from "../../src/cli/DisplayWidth.ts"
import { pictureText } from "../../src/cli/Screen.ts"
import { frame } from "../../src/cli/WatchFrame.ts"
import { initial, looked, pressed, type WatchModel } from "../../src/cli/WatchModel.ts"
import { budget, overview, slot, walSender } from "./slots.ts"

/** When it is drawn, in milliseconds. */
const time = 65_000

const giga = 1024 ** 3

const slots: ReadonlyArray<SlotOverview.SlotStatus> = [
  slot({
    activePid: 4711,
    lagBytes: 2 * giga,
    lagMillis: 150_000,
    confirmedPerSecond: 4_500_000,
    walSender: walSender(),
    decoding: {
      spillTransactions: 2,
      spillCount: 3,
      spillBytes: 5_000_000,
      streamTransactions: 0,
      streamCount: 0,
      streamBytes: 0,
      totalTransactions: 1234,
      totalBytes: 9 * giga
    },
    budget: {
      ...budget("warning"),
      retainedBytes: 3 * giga,
      limitBytes: 10 * giga,
      safeBytes: 7 * giga,
      growthPerSecond: 1_000_000,
      millisUntilLost: 7_500_000,
      reasons: ["TimeUntilLost"]
    }
  }),
  slot({ name: "倉庫_slot", database: "商店\u001b[2J", lagBytes: 100, lagMillis: 60_000, lagIsLonger: true }),
  slot({
    name: "gone",
    lagBytes: undefined,
    lagMillis: undefined,
    budget: budget("lost"),
    invalidationReason: "wal_removed"
  })
]

const server = overview({ at: time, slots, mostSlots: 10, writtenPerSecond: 1_000_000, walDirectoryBytes: 4 * giga })

const seen = [giga, 1.5 * giga, 2 * giga].reduce<WatchModel>(
  (model, lagBytes, index) =>
    looked(
      model,
      Result.succeed({ ...server, slots: slots.map((each, place) => (place === 0 ? { ...each, lagBytes } : each)) }),
      index * 1000
    ),
  initial({ order: "lag", slot: undefined })
)

const draw = (model: WatchModel, columns: number, rows = 24, palette = withoutColor, hasKeys = true) =>
  frame(model, { columns, rows, palette, time, interval: 2000, hasKeys })

/** How wide a line is, whatever it is painted with. */
const paintedWidth = (line: string): number =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what a palette wraps a text with.
  displayWidth(line.replace(/\u001b\[\d+m/g, ""))

describe("a frame of all slots", () => {
  it("is a table of them, the one that wants attention first, with what there is to press", () => {
    assert.deepStrictEqual(draw(seen, 130), [
      "PostgreSQL 18.4 | WAL 0/3000000, 977 kB/s | pg_wal 4 GB | 3 of 10 slots",
      "",
      "  SLOT         LAG     TIME      RATE  TREND  KEEPS  FORECAST       STATE        SPILLED  APPLICATION  CLIENT    DATABASE",
      "> gone           -        -         -             -  lost           wal_removed        -  -            -         shop",
      "  orders      2 GB  2.5 min  4.3 MB/s  ▅▆█     3 GB  lost in 2.1 h  streaming     4.8 MB  replicant    10.0.0.7  shop",
      "  倉庫_slot  100 B   >1 min         -  ███        -  -              inactive           -  -            -         商店\\u{1b}[2J",
      "s order: lag | up, down, enter one slot | q quit"
    ])
  })

  it("leaves out columns where there is no room, and the name and the lag last", () => {
    assert.match(draw(seen, 60)[2]!, /^ {2}SLOT +LAG +TIME +FORECAST +STATE *$/)
    assert.match(draw(seen, 24)[2]!, /^ {2}SLOT +LAG *$/)
    assert.match(draw(seen, 10)[2]!, /^SLOT$/)
  })

  it("is never wider than the terminal, nor higher, whatever that is and whatever is in it", () => {
    const failed = looked(seen, Result.fail(new ConnectionError({ reason: "Closed", detail: "商店 ".repeat(40) })), 0)
    const busy = looked(
      seen,
      Result.succeed({
        ...server,
        lackedRights: ["pg_ls_waldir"],
        copies: Array.from({ length: 9 }, (_, pid) => ({
          pid,
          database: "商店",
          relation: "public.注文",
          command: "COPY TO",
          applicationName: "replicant",
          bytes: 1e9,
          totalBytes: 0,
          rows: 1e6,
          startedAt: 0
        }))
      }),
      0
    )
    for (const model of [seen, failed, busy, initial({ order: "lag", slot: undefined })]) {
      for (const shown of [model, pressed(model, "return")!]) {
        for (const palette of [withoutColor, withColor]) {
          for (let columns = 2; columns < 140; columns += 3) {
            for (const rows of [1, 2, 5, 8, 24]) {
              const lines = draw(shown, columns, rows, palette)
              assert.isAtMost(lines.length, rows, `${columns} x ${rows}`)
              for (const line of lines) assert.isBelow(paintedWidth(line), columns, `${columns} x ${rows}: ${line}`)
            }
          }
        }
      }
    }
  })

  it("shows the part of a long list that the chosen slot is in", () => {
    const many = Array.from({ length: 50 }, (_, index) => slot({ name: `s${String(index).padStart(2, "0")}` }))
    let model = looked(
      initial({ order: "name", slot: undefined }),
      Result.succeed(overview({ at: time, slots: many })),
      0
    )
    for (let step = 0; step < 30; step++) model = pressed(model, "down")!
    const lines = draw(model, 80, 12)
    assert.lengthOf(lines, 12)
    assert.isTrue(lines.some((line) => line.startsWith("> s30")))
    assert.match(lines[2]!, /SLOT/)
    assert.match(lines.at(-1)!, /q quit/)
  })

  it("says for how long nothing could be seen, and shows what was", () => {
    const failed = looked(seen, Result.fail(new ConnectionError({ reason: "Closed", detail: "gone\u001b[2J" })), 5000)
    const lines = draw(failed, 100)
    assert.strictEqual(lines[1], "cannot look for 1 min: gone\\u{1b}[2J")
    assert.isTrue(lines.some((line) => line.includes("orders")))
  })

  it("says how old it is where no answer comes", () => {
    const old = looked(seen, Result.succeed({ ...server, at: time - 7000 }), 0)
    assert.include(draw(old, 100)[2], "SLOT", "a look may take some seconds")
    const older = looked(seen, Result.succeed({ ...server, at: time - 8000 }), 0)
    assert.strictEqual(draw(older, 100)[1], "no answer: this is of 8 s ago")
  })

  it("says what is hidden for want of a right, and which COPY is under way", () => {
    const copy = {
      pid: 9,
      database: "shop",
      relation: undefined,
      command: "COPY TO",
      applicationName: "replicant",
      bytes: 1e6,
      totalBytes: 0,
      rows: 1234,
      startedAt: 0
    }
    const limited = overview({ at: time, slots, lackedRights: ["pg_read_all_stats"], copies: [copy] })
    const lines = draw(looked(seen, Result.succeed(limited), 0), 120)
    assert.includeMembers(
      [...lines],
      [
        "hidden for want of a right: pg_read_all_stats (GRANT pg_monitor)",
        "COPY TO pid 9 in shop, 1,234 rows, 977 kB, replicant, since 00:00:00 UTC"
      ]
    )
  })

  it("has nothing to press where nobody can, and no colour where none is wanted", () => {
    const lines = draw(seen, 100, 24, withoutColor, false)
    assert.isFalse(lines.some((line) => line.includes("quit") || line.startsWith("> ")))
    assert.notInclude(lines.join(), "\u001b")
    assert.include(draw(seen, 100, 24, withColor).join(), "\u001b[33mlost in 2.1 h")
  })

  it("says so where there are no slots", () =>
    assert.include([...draw(looked(seen, Result.succeed(overview()), 0), 80)], "this server has no slots"))
})

describe("a frame of one slot", () => {
  it("tells all that is known of it", () => {
    const one = pressed(pressed(seen, "down")!, "return")!
    assert.deepStrictEqual(draw(one, 110), [
      "PostgreSQL 18.4 | WAL 0/3000000, 977 kB/s | pg_wal 4 GB | 3 of 10 slots",
      "",
      "slot       orders, pgoutput in shop, streaming",
      "behind     2 GB, 2.5 min, confirms 4.3 MB/s",
      "positions  confirmed 0/2000000, kept from 0/1000000, WAL ends at 0/3000000",
      "keeps      3 GB, may 10 GB, grows 977 kB/s",
      "forecast   lost in 2.1 h, warning, reserved",
      "why        slot orders keeps 3 GB of WAL: it is lost in 2 h if things go on so",
      "walsender  pid 4711, streaming, replicant, replicant, 10.0.0.7, WalSenderWaitForWal",
      "client     sent 0/3000000, written 0/3000000, flushed 0/2000000, applied 0/2000000",
      "decoded    1,234 transactions, 9 GB; spilled 2, 4.8 MB; streamed 0, 0 B",
      "trend      ▅▆█",
      "esc back | up, down another | q quit"
    ])
  })

  it("says so once the slot is gone", () => {
    const one = { ...seen, shows: "one", selected: "dropped" } as const
    assert.include([...draw(one, 80)], "there is no slot dropped")
  })
})

describe("a picture", () => {
  it("is one text that clears what it does not draw over, and no more than that", () => {
    assert.strictEqual(pictureText(["a", "b"]), "\u001b[?2026h\u001b[Ha\u001b[K\r\nb\u001b[K\u001b[J\u001b[?2026l")
  })
})
