/** A doctor at a workspace's server, as a test asks it. */
import { Doctor } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { Effect, Redacted } from "effect"

/** What a doctor says of a server, as the superuser or whom the URL names. */
export const examine = (url: string, plan: Doctor.Plan, extra?: ReadonlyArray<Doctor.Check>) =>
  Doctor.run(plan, extra).pipe(Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })))

/** The findings of one check. */
export const findingsOf = (report: Doctor.Report, id: string): ReadonlyArray<Doctor.Finding> =>
  report.findings.filter((finding) => finding.id === id)

/** What they are about, in order. */
export const subjectsOf = (report: Doctor.Report, id: string): ReadonlyArray<string | undefined> =>
  findingsOf(report, id)
    .map(({ subject }) => subject)
    .toSorted()

/** Whether a check was carried out, and found nothing. */
export const isSilent = (report: Doctor.Report, id: string): boolean =>
  report.checked.includes(id) && findingsOf(report, id).length === 0
