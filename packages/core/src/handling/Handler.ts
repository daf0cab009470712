/** The public module `Handler`: how changes are taken, and what composes it. */
export * from "../stream/Handler.ts"
export { type BatchOptions, batch } from "./Batch.ts"
export { type ByKeyOptions, byKey } from "./ByKey.ts"
export type { HandedOf, KeyOf, RowOf } from "./ChangeKey.ts"
export { type InboxOptions, inbox } from "./Inbox.ts"
export { type OnceOptions, once } from "./Once.ts"
export { PositionError, type SqlTable } from "./PositionTable.ts"
export { type ParkOptions, park, retry } from "./Retry.ts"
