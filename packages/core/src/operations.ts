/** For whoever keeps streams running: what a server's slots and a program's streams are asked, as values. */
export * as Doctor from "./doctor/Doctor.ts"
export * as Operations from "./operations/Operations.ts"
export * as SlotOverview from "./operations/SlotOverview.ts"
export * as WalBudget from "./operations/WalBudget.ts"
export * as Metrics from "./replication/Metrics.ts"
export * as Health from "./stream/Health.ts"
export { CopyObservation, Observation } from "./stream/Observation.ts"
