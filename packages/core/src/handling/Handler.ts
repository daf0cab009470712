/** The public module `Handler`: how changes are taken, and what composes it. */
export * from "../stream/Handler.ts"
export { type BatchOptions, batch } from "./Batch.ts"
export type { BreakerOptions } from "./Breaker.ts"
export {
  broadcast,
  type Consumer,
  type OptionalOptions,
  optional,
  type RequiredOptions,
  required
} from "./Broadcast.ts"
export type { Lagged } from "./BroadcastConsumer.ts"
export type { Reread } from "./BroadcastReread.ts"
export { type ByKeyOptions, byKey } from "./ByKey.ts"
export type { HandedOf, KeyOf, RowOf } from "./ChangeKey.ts"
export { type InboxOptions, inbox } from "./Inbox.ts"
export { type OnceOptions, once } from "./Once.ts"
export { type FittingOf, type Outcome, type Parked, type ParkOptions, park } from "./Park.ts"
export { PositionError, type SqlTable } from "./PositionTable.ts"
export { retry } from "./Retry.ts"
export { type RetryParkedOptions, retryParked } from "./RetryParked.ts"
