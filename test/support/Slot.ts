/** What a test does with the slot of its workspace, and wants to know of it. */
import { Lsn, type Snapshot } from "@replicant/core"
import { Effect } from "effect"
import { eventually } from "./eventually.ts"
import type { Workspace } from "./Workspace.ts"

/** Makes it, for pgoutput. */
export const makeSlot = (workspace: Workspace) =>
  workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)

/** How far it is confirmed; `0/0` where there is none. */
export const confirmed = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => Lsn.fromString(slot?.confirmed_flush_lsn ?? "") ?? Lsn.zero)

/** Waits until the last commit among these is confirmed, and so comes to nobody again. */
export const untilConfirmed = (workspace: Workspace, changes: ReadonlyArray<Snapshot.ChangeAfterSnapshot>) => {
  const last = changes.findLast((change) => change._tag === "Commit")
  return eventually(
    Effect.map(confirmed(workspace), (lsn) => last !== undefined && lsn >= last.endLsn),
    { what: "the last commit is confirmed" }
  )
}

/**
 * Waits until there is none, of the workspace's name unless told otherwise. A slot whose making fails, and a temporary one,
 * goes with its walsender, a moment after the client knows.
 */
export const untilGone = (workspace: Workspace, name?: string) =>
  eventually(
    Effect.map(workspace.findSlot(name), (slot) => slot === undefined),
    { what: "no slot is left" }
  )

/** Whether it is there, and nobody uses it. */
export const isFree = (workspace: Workspace) => Effect.map(workspace.findSlot(), (slot) => slot?.active === false)
