/** A doctor at a workspace's server, as a test asks it. */
import { assert } from "@effect/vitest"
import { Doctor } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { Effect, Redacted } from "effect"
import { eventually } from "./eventually.ts"

/** What a doctor says of a server, as the superuser or whom the URL names. */
export const examine = (url: string, plan: Doctor.Plan, extra?: ReadonlyArray<Doctor.Check>) =>
  Doctor.run(plan, extra).pipe(Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })))

/** The findings of one check. */
export const findingsOf = (report: Doctor.Report, id: string): ReadonlyArray<Doctor.Finding> =>
  report.findings.filter((finding) => finding.id === id)

/** The statements that mend what one check found. */
export const cures = (report: Doctor.Report, id: string): ReadonlyArray<string> =>
  findingsOf(report, id).flatMap(({ cure }) => cure.sql)

/** What they are about, in order. */
export const subjectsOf = (report: Doctor.Report, id: string): ReadonlyArray<string | undefined> =>
  findingsOf(report, id)
    .map(({ subject }) => subject)
    .toSorted()

/** These checks were carried out, and found nothing. */
export const silent = (report: Doctor.Report, ...ids: ReadonlyArray<string>): void => {
  for (const id of ids) {
    assert.include(report.checked, id)
    assert.deepStrictEqual(findingsOf(report, id), [])
  }
}

/** Asks until none of these checks finds anything. */
export const untilSilent = <E, R>(report: Effect.Effect<Doctor.Report, E, R>, ...ids: ReadonlyArray<string>) =>
  eventually(
    Effect.map(report, (now) => {
      const loud = ids.find((id) => findingsOf(now, id).length > 0)
      if (loud === undefined) silent(now, ...ids)
      return loud === undefined ? now : undefined
    }),
    { what: `nothing is found of ${ids.join(", ")}` }
  )

/** Asks until one check has found something. */
export const untilFound = <E, R>(report: Effect.Effect<Doctor.Report, E, R>, id: string) =>
  eventually(
    Effect.map(report, (now) => (findingsOf(now, id).length > 0 ? now : undefined)),
    { what: `${id} is found` }
  )

/** Each of these checks found something. */
export const found = (report: Doctor.Report, ...ids: ReadonlyArray<string>): void => {
  for (const id of ids) assert.isNotEmpty(findingsOf(report, id), id)
}
