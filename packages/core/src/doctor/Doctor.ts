/**
 * A doctor for logical replication: looks at a server, and at what somebody means to do there, and says what is wrong, what it
 * will do, and what mends it. It reads catalogs and settings and changes nothing: its sessions are read-only.
 *
 * Each fact is asked once, by one statement, and whatever cannot be read is told as well: silence means that all is well.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { InvalidOption, ReplicationError } from "../ReplicationError.ts"
import { formatVersion } from "../server/ServerVersion.ts"
import type { WalSender } from "../server/WalSender.ts"
import type * as Check from "./Check.ts"
import * as Connecting from "./Connecting.ts"
import * as Disk from "./Disk.ts"
import type { Finding, Report, ServerName, Severity } from "./Finding.ts"
import * as Network from "./Network.ts"
import { type Asked, type Plan, resolve } from "./Plan.ts"
import * as Publications from "./Publications.ts"
import * as PublishedTables from "./PublishedTables.ts"
import { role } from "./Remedies.ts"
import * as Rights from "./Rights.ts"
import * as Server from "./Server.ts"
import { type Introduced, introduce, openSource } from "./Session.ts"
import * as Slots from "./Slots.ts"
import * as Standbys from "./Standbys.ts"
import * as Transactions from "./Transactions.ts"

export { jsonArray } from "../server/TablesSql.ts"
export { ask, type Check, type Context, type Fact, make as check, type Who } from "./Check.ts"
export * from "./Finding.ts"
export type { Asked, Plan, Session, Thresholds } from "./Plan.ts"
export { publications, streamed } from "./PublicationFacts.ts"
export { bytes, plural, reloaded, restarted, some } from "./Remedies.ts"
export { script } from "./Script.ts"
export { slots } from "./SlotFacts.ts"

/** Everything that is looked for, but for what only a driver can see. */
export const checks: ReadonlyArray<Check.Check> = [
  ...Connecting.checks,
  ...Server.checks,
  ...Rights.checks,
  ...Publications.checks,
  ...PublishedTables.checks,
  ...Slots.checks,
  ...Transactions.checks,
  ...Network.checks,
  ...Disk.checks,
  ...Standbys.checks
]

/** A session at each server that could be reached. */
type Sessions = { readonly [Name in ServerName]: Introduced | undefined }

type Known = Map<Check.Fact<unknown>, Result.Result<unknown, ReplicationError>>

/** What is said of something that could not be looked at. */
const unseen = (
  { grants, name, server, what }: Pick<Check.Fact<unknown>, "grants" | "name" | "server" | "what">,
  error: ReplicationError,
  who: Check.Who | undefined
): Finding => {
  const isDenied = error._tag === "PermissionDenied" && who !== undefined
  const asked = isDenied ? role(who.role) : ""
  return {
    id: `unseen.${name}`,
    severity: "unseen",
    server,
    seen: `cannot see ${what}: ${error.message}`,
    consequence: "what depends on it was not looked at: nobody knows whether it is well",
    cure: isDenied
      ? { sql: grants?.(asked) ?? [`GRANT pg_monitor TO ${asked}`], right: "a superuser, or ADMIN OPTION on that role" }
      : { sql: [], advice: error.remedy },
    page: "docs/doctor.md#what-it-cannot-see"
  }
}

/** With what a fact cannot be read: the connection is gone, or a fact that it needs could not be read. */
const obstacle = (
  { needs = [], server }: Check.Fact<unknown>,
  known: Known,
  lost: ReadonlyMap<ServerName, ReplicationError>
): ReplicationError | undefined =>
  lost.get(server) ??
  needs
    .map((needed) => known.get(needed))
    .find((answer) => answer !== undefined && Result.isFailure(answer))
    ?.pipe(Result.getFailure, Option.getOrUndefined)

/** Reads facts in turn, each once. Once a connection is gone, the rest of its server fails as it did. */
const readFacts = Effect.fnUntraced(function* (
  facts: ReadonlyArray<Check.Fact<unknown>>,
  introduced: Sessions,
  asked: Asked
): Effect.fn.Return<Known> {
  const known: Known = new Map()
  const lost = new Map<ServerName, ReplicationError>()
  // Whoever needs a fact knows its type, and it has been read by then.
  const valueOf = <A>(fact: Check.Fact<A>): A => Result.getOrThrow(known.get(fact)!) as A
  for (const fact of facts) {
    const at = introduced[fact.server]
    if (at === undefined) continue
    const failure = obstacle(fact, known, lost)
    const answer: Result.Result<unknown, ReplicationError> =
      failure === undefined ? yield* Effect.result(fact.read({ ...at, asked, known: valueOf })) : Result.fail(failure)
    known.set(fact, answer)
    if (Result.isFailure(answer) && answer.failure._tag === "ConnectionError") lost.set(fact.server, answer.failure)
  }
  return known
})

/** A fact, and before it all that it needs. */
const withNeeds = (fact: Check.Fact<unknown>): ReadonlyArray<Check.Fact<unknown>> => [
  ...(fact.needs ?? []).flatMap(withNeeds),
  fact
]

const unique = <A>(values: Iterable<A>): ReadonlyArray<A> => [...new Set(values)]

const ranks: { readonly [Level in Severity]: number } = { error: 0, warning: 1, unseen: 2, note: 3 }

/** The worst first; of one kind in the order in which they are looked for. */
const sorted = (findings: ReadonlyArray<Finding>): ReadonlyArray<Finding> =>
  findings.toSorted((left, right) => ranks[left.severity] - ranks[right.severity])

/** One that stands for all that a lost connection hid, and one for each fact that was refused by itself. */
const unseenOf = (known: Known, whoAt: (server: ServerName) => Check.Who | undefined): ReadonlyArray<Finding> => {
  const told = new Set<ReplicationError>()
  return Array.from(known).flatMap(([fact, answer]) => {
    if (Result.isSuccess(answer) || told.has(answer.failure)) return []
    told.add(answer.failure)
    return [unseen(fact, answer.failure, whoAt(fact.server))]
  })
}

/** What a server's session is called where there is none. */
const noSession = (server: ServerName) => ({ name: server, what: `the ${server}`, server })

/**
 * Looks at everything that the plan is about. Fails with nothing but a plan that makes no sense: what a server refuses is
 * told in the report.
 *
 * @example
 * Doctor.run({ publications: ["orders"], slot: "orders" }).pipe(
 *   Effect.tap((report) => Effect.log(Doctor.verdict(report), report.findings))
 * )
 */
export const run = Effect.fn("Replicant.doctor")(function* (
  plan: Plan,
  extra: ReadonlyArray<Check.Check> = []
): Effect.fn.Return<Report, InvalidOption, WalSender> {
  return yield* Effect.scoped(look(yield* resolve(plan), [...checks, ...extra]))
})

const look = Effect.fnUntraced(function* (
  asked: Asked,
  all: ReadonlyArray<Check.Check>
): Effect.fn.Return<Report, never, WalSender | Scope.Scope> {
  const source = yield* openSource
  const others = yield* Effect.all({
    target: asked.target === undefined ? Effect.undefined : Effect.result(Effect.flatMap(asked.target, introduce)),
    standby: asked.standby === undefined ? Effect.undefined : Effect.result(Effect.flatMap(asked.standby, introduce))
  })
  const introduced: Sessions = {
    source: source.introduced,
    target: others.target && Result.getOrUndefined(others.target),
    standby: others.standby && Result.getOrUndefined(others.standby)
  }
  const context: Check.Context = {
    asked,
    who: source.introduced?.who,
    serverVersion: source.introduced?.session.serverVersion ?? 0,
    refusal: source.refusal,
    now: yield* Clock.currentTimeMillis
  }
  // Facts of a server that cannot be reached are told of as one; those of one that is not asked about, not at all.
  const possible = all
    .map((check) => ({ check, facts: check.facts.flatMap(withNeeds) }))
    .filter(
      ({ check, facts }) =>
        (check.applies?.(context) ?? true) && facts.every(({ server }) => introduced[server] !== undefined)
    )
  const known = yield* readFacts(unique(possible.flatMap(({ facts }) => facts)), introduced, asked)
  const values = new Map(
    Array.from(known).flatMap(([fact, answer]) => (Result.isSuccess(answer) ? [[fact, answer.success] as const] : []))
  )
  const done = possible.map(({ check }) => check).filter(({ facts }) => facts.every((fact) => values.has(fact)))
  const refusals = (["target", "standby"] as const).flatMap((server) => {
    const other = others[server]
    return other !== undefined && Result.isFailure(other) ? [unseen(noSession(server), other.failure, undefined)] : []
  })
  return {
    server:
      context.who === undefined
        ? null
        : {
            version: formatVersion(context.serverVersion),
            database: context.who.database,
            role: context.who.role,
            isStandby: context.who.isInRecovery
          },
    checked: done.map(({ id }) => id),
    findings: sorted([
      ...(source.failure === undefined ? [] : [unseen(noSession("source"), source.failure, undefined)]),
      ...refusals,
      ...done.flatMap((check) => check.find(values, context)),
      ...unseenOf(known, (server) => introduced[server]?.who)
    ])
  }
})
