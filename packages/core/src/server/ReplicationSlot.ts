/** Replication slots: found, watched, made, dropped and waited for. The public module `ReplicationSlot`. */

export { BlockingTransaction } from "../SlotError.ts"
export {
  getReplicationSlot,
  isInvalidated,
  listReplicationSlots,
  type ReplicationSlot,
  walStatusChanges
} from "./SlotCatalog.ts"
export {
  blockingTransactions,
  type CreatedSlot,
  type CreateSlotOptions,
  createReplicationSlot,
  dropReplicationSlot
} from "./SlotCreation.ts"
export { type SetupSlot, type SlotPolicy, setupReplicationSlot } from "./SlotSetup.ts"
