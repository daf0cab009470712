/** For tests of what uses Replicant, without a server: `@replicant/core/testing`. */
export * as LetterLaws from "./LetterLaws.ts"
export * as SinkLaws from "./SinkLaws.ts"
export {
  type ColumnType,
  type KeyRow,
  type PartialRow,
  type RelationOptions,
  relation,
  type Source,
  type TableOptions,
  type TestColumn,
  type TestRelation,
  type WholeRow
} from "./TestRelation.ts"
export type { TestPublication, TestServerOptions, TestSlot } from "./TestServer.ts"
export type { StatusUpdate } from "./TestSession.ts"
export * from "./TestTransaction.ts"
export type {
  Written,
  WrittenChange,
  WrittenMessage,
  WrittenOf,
  WrittenTransaction,
  WrittenUnpublished
} from "./TestWal.ts"
export { TestWalSender, type TestWalSenderShape } from "./TestWalSender.ts"
