/**
 * Tests that provoke a fault and see what was promised. Each bears the id of its row in docs/faults.md: `N` for the
 * network, `V` server, `S` slot and publication, `D` data, `C` consumer, `F` frames, `P` snapshot, `X` security, `W`
 * wal2json.
 */
import type { Effect, Scope } from "effect"
import { onServer, type Server, type ServerTestOptions } from "./Servers.ts"

/** The id of a fault, or several that one test provokes. */
export type FaultId = `${"N" | "V" | "S" | "D" | "C" | "F" | "P" | "X" | "W"}${number}`

/** `[N1] ` before a title, `[N1, N9] ` for two: what docs/faults.md is checked against. */
export const faultTitle = (ids: FaultId | ReadonlyArray<FaultId>, title: string): string =>
  `[${typeof ids === "string" ? ids : ids.join(", ")}] ${title}`

/** A fault provoked on the shared server of the project's version. */
export const fault = (
  ids: FaultId | ReadonlyArray<FaultId>,
  title: string,
  body: (server: Server) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options?: ServerTestOptions
): void => onServer("postgres", faultTitle(ids, title), body, options)
