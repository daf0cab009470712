/**
 * For whoever writes a driver or an output plugin, `@replicant/core/driver`: the port and what it is made of, frames and
 * frontend messages, errors told apart, the state of one stream, and one stream by itself.
 */
export * as OutputPlugin from "./change/OutputPlugin.ts"
export { workingSlotName } from "./copying/WorkingSlot.ts"
export { errorJson, logText } from "./ErrorForm.ts"
export { portableText, type TextSlices, tooLong } from "./protocol/ByteReader.ts"
export { Frames } from "./protocol/Frames.ts"
export * as FrontendMessage from "./protocol/FrontendMessage.ts"
export { qualifiedName, quoteIdentifier, quoteLiteral } from "./protocol/ReplicationCommand.ts"
export * from "./refineServerError.ts"
export { type HeldLease, heldLeaseOf } from "./replication/HeldLease.ts"
export { startReplicationStream } from "./replication/ReplicationStream.ts"
export type { StreamOptions } from "./replication/StreamOptions.ts"
export * as WalProgress from "./replication/WalProgress.ts"
export { type ServerMessage, Stage } from "./ServerError.ts"
export { type IdentifySystem, identifySystem } from "./server/IdentifySystem.ts"
export * as PublishedEntries from "./server/PublishedEntries.ts"
export { formatVersion } from "./server/ServerVersion.ts"
export { hasReplicaIdentity } from "./server/TablesSql.ts"
export * from "./server/WalSender.ts"
