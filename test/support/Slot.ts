/** What a test does with the slot of its workspace, and wants to know of it. */
import { Lsn } from "@replicant/core"
import { Effect } from "effect"
import type { Workspace } from "./Workspace.ts"

/** Makes it, for pgoutput. */
export const makeSlot = (workspace: Workspace) =>
  workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)

/** How far it is confirmed; `0/0` where there is none. */
export const confirmed = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => Lsn.fromString(slot?.confirmed_flush_lsn ?? "") ?? Lsn.zero)

/** Whether it is there, and nobody uses it. */
export const isFree = (workspace: Workspace) => Effect.map(workspace.findSlot(), (slot) => slot?.active === false)
