/** A budget in words, for whoever is called. */
import { bytes } from "../doctor/Remedies.ts"
import type { WalBudget } from "./Budget.ts"
import type { Reason } from "./BudgetLevel.ts"

const time = (millis: number): string => {
  const seconds = Math.round(millis / 1000)
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}

const reasonText = (reason: Reason, budget: WalBudget): string => {
  switch (reason) {
    case "Lost":
      return "the server has given it up"
    case "Unreserved":
      return "the next checkpoint may remove WAL that it needs"
    case "TimeUntilLost":
      return `it is lost in ${time(budget.millisUntilLost ?? 0)} if things go on so`
    case "TimeUntilDiskFull":
      return `the disk is full in ${time(budget.millisUntilDiskFull ?? 0)} if things go on so`
    case "SafeBytes":
      return `only ${bytes(Math.max(0, budget.safeBytes ?? 0))} may be written until it is in danger`
    case "RetainedBytes":
      return `it keeps ${bytes(budget.retainedBytes ?? 0)}`
    case "Unseen":
      return `it could not be looked at for ${time(budget.unseenMillis)}`
  }
}

/** What makes its level, in one line without names of tables or values; what it keeps, where all is well. */
export const describe = (budget: WalBudget): string => {
  const kept = budget.retainedBytes === undefined ? "keeps no WAL" : `keeps ${bytes(budget.retainedBytes)} of WAL`
  if (budget.reasons.length === 0) return `slot ${budget.slot} ${kept}`
  return `slot ${budget.slot} ${kept}: ${budget.reasons.map((reason) => reasonText(reason, budget)).join("; ")}`
}
