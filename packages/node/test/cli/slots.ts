/** Slots as `SlotOverview` tells of them, made of what a test is about. */
import { Lsn } from "@replicant/core"
import type { SlotOverview, WalBudget } from "@replicant/core/operations"

export const budget = (level: WalBudget.Level = "ok"): WalBudget.WalBudget => ({
  slot: "orders",
  walStatus: level === "lost" ? "lost" : "reserved",
  retainedBytes: undefined,
  safeBytes: undefined,
  limitBytes: undefined,
  freeBytes: undefined,
  writtenPerSecond: undefined,
  growthPerSecond: undefined,
  millisUntilLost: undefined,
  millisUntilDiskFull: undefined,
  unseenMillis: 0,
  level,
  reasons: []
})

export const slot = (facts: Partial<SlotOverview.SlotStatus> = {}): SlotOverview.SlotStatus => ({
  name: "orders",
  type: "logical",
  plugin: "pgoutput",
  database: "shop",
  temporary: false,
  activePid: undefined,
  restartLsn: Lsn.fromString("0/1000000"),
  confirmedFlushLsn: Lsn.fromString("0/2000000"),
  walStatus: "reserved",
  invalidationReason: undefined,
  failover: undefined,
  synced: undefined,
  inactiveSince: undefined,
  lagBytes: 0,
  lagMillis: 0,
  lagIsLonger: false,
  confirmedPerSecond: undefined,
  walSender: undefined,
  decoding: undefined,
  budget: budget(),
  ...facts
})

export const walSender = (facts: Partial<SlotOverview.WalSenderStatus> = {}): SlotOverview.WalSenderStatus => ({
  pid: 4711,
  user: "replicant",
  applicationName: "replicant",
  clientAddress: "10.0.0.7",
  state: "streaming",
  waitEvent: "WalSenderWaitForWal",
  sentLsn: Lsn.fromString("0/3000000"),
  writeLsn: Lsn.fromString("0/3000000"),
  flushLsn: Lsn.fromString("0/2000000"),
  replayLsn: Lsn.fromString("0/2000000"),
  writeLagMillis: 3,
  flushLagMillis: 1200,
  replayLagMillis: 1200,
  syncState: "async",
  connectedAt: 0,
  reportedAt: 0,
  ...facts
})

export const overview = (facts: Partial<SlotOverview.SlotOverview> = {}): SlotOverview.SlotOverview => ({
  at: 0,
  serverVersion: 180_004,
  serverStartedAt: 0,
  isInRecovery: false,
  walEnd: Lsn.fromString("0/3000000")!,
  writtenPerSecond: undefined,
  walDirectoryBytes: undefined,
  freeBytes: undefined,
  limitBytes: undefined,
  mostSlots: undefined,
  slots: [],
  copies: [],
  lackedRights: [],
  ...facts
})
