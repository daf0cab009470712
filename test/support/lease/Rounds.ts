/**
 * Rounds of failover: one process has the lease and streams, another stands by, rows are written all the while; the first
 * meets with something, and it is measured when the other has its first row. Whoever is gone has a successor that stands by
 * before the next round.
 */
import { Lsn } from "@replicant/core"
import { Effect, Fiber, type Scope } from "effect"
import { eventually } from "../eventually.ts"
import { confirmed, makeSlot } from "../Slot.ts"
import type { Workspace } from "../Workspace.ts"
import { type Contender, type Entry, type Ledger, makeLedger, startContender, systemMillis } from "./Contender.ts"

/** What the owner meets with. `session`: its lease's session alone is ended; `black`: its network swallows everything. */
export type Blow = "SIGKILL" | "SIGTERM" | "freeze" | "session" | "black"

export const blows: ReadonlyArray<Blow> = ["SIGKILL", "SIGTERM", "freeze", "session", "black"]

export interface Verdict {
  /** Milliseconds from each blow to the next owner's first row, by the blow. */
  readonly took: ReadonlyMap<Blow, ReadonlyArray<number>>
  readonly written: number
  /** Rows that nobody has handled. */
  readonly lost: number
  /** Rows that were confirmed to the server while nobody had handled them, in all looks that were taken. */
  readonly confirmedTooFar: number
  /** Rows whose first arrival was behind that of a later one. */
  readonly outOfOrder: number
  /** Handled more than once: what was not confirmed when its owner was gone. */
  readonly repeated: number
  /** Transactions that an owner handled after the next one had begun. */
  readonly late: number
}

interface Play {
  readonly workspace: Workspace
  readonly ledger: Ledger
  readonly term: number
  /** Of each row where WAL ended once it was committed. */
  readonly ends: Map<number, Lsn.Lsn>
  owner: Contender
  standby: Contender
  starts: number
  confirmedTooFar: number
  late: number
}

/** Writes a row every few milliseconds until it is told to end. */
const write = Effect.fnUntraced(function* ({ ends, workspace }: Pick<Play, "ends" | "workspace">) {
  const session = yield* workspace.session
  let id = 0
  const one = Effect.gen(function* () {
    id++
    yield* session.query(`INSERT INTO t VALUES (${id})`)
    const [row] = yield* session.query("SELECT pg_current_wal_insert_lsn() AS lsn")
    ends.set(id, Lsn.fromString(String(row?.lsn))!)
  })
  // A row is written whole: what is interrupted is the pause.
  const fiber = yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.uninterruptible(one), Effect.sleep(8))))
  return Fiber.interrupt(fiber)
})

/** Looks whether anything is confirmed that nobody has. */
const look = Effect.fnUntraced(function* (play: Play) {
  const confirmedTo = yield* confirmed(play.workspace)
  const handled = new Set(play.ledger.read().flatMap(({ ids }) => ids))
  for (const [id, end] of play.ends) if (end <= confirmedTo && !handled.has(id)) play.confirmedTooFar++
})

const newcomer = (play: Pick<Play, "ledger" | "starts" | "term" | "workspace">) =>
  startContender(play.workspace, play.ledger, { name: `contender_${play.starts++}`, term: play.term })

const leasePid = ({ owner, workspace }: Play) =>
  Effect.map(
    workspace.sql(`SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database() AND a.application_name = '${owner.name}'`),
    ([row]) => Number(row?.pid)
  )

/** The first of what `name` handles from then on. */
const firstOf = (play: Play, name: string, since: number): Effect.Effect<Entry, unknown> =>
  eventually(
    Effect.sync(() => play.ledger.read().find((entry) => entry.name === name && entry.at >= since)),
    { what: `${name} has a row; its lease went through ${play.standby.states().join(", ")}` }
  )

const strike = (play: Play, blow: Blow): Effect.Effect<unknown, unknown> => {
  const { owner } = play
  switch (blow) {
    case "SIGKILL":
    case "SIGTERM":
      return owner.kill(blow)
    case "freeze":
      return owner.kill("SIGSTOP")
    case "session":
      return Effect.flatMap(leasePid(play), (pid) => play.workspace.sql(`SELECT pg_terminate_backend(${pid})`))
    case "black":
      return owner.proxy.blackHole()
  }
}

/** One blow, and how long it was until the next owner's first row, in milliseconds. */
const round = Effect.fnUntraced(function* (play: Play, blow: Blow): Effect.fn.Return<number, unknown, Scope.Scope> {
  const { owner, standby } = play
  // Somewhere between two of its signs of life.
  yield* Effect.sleep(Math.random() * (play.term / 3))
  const states = owner.states().length
  const struck = systemMillis()
  yield* strike(play, blow)
  const first = yield* firstOf(play, standby.name, struck)
  const isGone = blow === "SIGKILL" || blow === "SIGTERM"
  if (blow === "freeze") yield* owner.kill("SIGCONT")
  yield* look(play)
  if (isGone) {
    yield* owner.ended
  } else {
    // The zombie finds out, and stands by again.
    yield* owner.becomes("Lost", states)
    yield* look(play)
    if (blow === "black") yield* owner.proxy.pass
    yield* owner.becomes("Waiting", states)
  }
  yield* look(play)
  play.late += play.ledger.read().filter(({ at, name }) => name === owner.name && at > first.at).length
  play.owner = standby
  play.standby = isGone ? yield* newcomer(play) : owner
  yield* play.standby.becomes("Waiting", isGone ? 0 : states)
  return first.at - struck
})

/** As many rounds of each blow, in turn. */
export const playRounds = Effect.fnUntraced(function* (
  workspace: Workspace,
  options: {
    readonly rounds: number
    readonly term: number
    readonly blows?: ReadonlyArray<Blow> | undefined
    readonly onRound?: ((blow: Blow, took: number) => void) | undefined
  }
): Effect.fn.Return<Verdict, unknown, Scope.Scope> {
  const { onRound, rounds, term } = options
  yield* workspace.sql("CREATE TABLE t (id int PRIMARY KEY)")
  yield* makeSlot(workspace)
  const ledger = yield* makeLedger
  const owner = yield* startContender(workspace, ledger, { name: "contender_a", term })
  yield* owner.becomes("Held")
  const standby = yield* startContender(workspace, ledger, { name: "contender_b", term })
  yield* standby.becomes("Waiting")
  const play: Play = {
    workspace,
    ledger,
    term,
    ends: new Map(),
    owner,
    standby,
    starts: 0,
    confirmedTooFar: 0,
    late: 0
  }
  const stopWriting = yield* write(play)
  yield* firstOf(play, owner.name, 0)
  const took = new Map<Blow, Array<number>>()
  for (let count = 0; count < rounds; count++) {
    for (const blow of options.blows ?? blows) {
      const millis = yield* round(play, blow)
      took.set(blow, [...(took.get(blow) ?? []), millis])
      onRound?.(blow, millis)
    }
  }
  yield* stopWriting
  const written = play.ends.size
  const missing = () => {
    const handled = new Set(ledger.read().flatMap(({ ids }) => ids))
    return [...play.ends.keys()].filter((id) => !handled.has(id)).length
  }
  // What is lost never comes: then the count tells.
  yield* Effect.ignore(eventually(Effect.sync(() => missing() === 0)))
  const ids = ledger.read().flatMap((entry) => entry.ids)
  const firsts = [...new Set(ids)]
  return {
    took,
    written,
    lost: missing(),
    confirmedTooFar: play.confirmedTooFar,
    outOfOrder: firsts.filter((id, index) => index > 0 && id < firsts[index - 1]!).length,
    repeated: ids.length - firsts.length,
    late: play.late
  }
})
