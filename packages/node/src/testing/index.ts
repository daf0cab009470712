/** Servers to test against, and a network that misbehaves: `@replicant/node/testing`. */
export type { FaultProxyShape, FaultProxyTarget } from "./FaultProxy.ts"
export { FaultProxy } from "./FaultProxy.ts"
export type { CutPlan, Direction, Ending } from "./FaultRules.ts"
export { PgServerFailed } from "./PgProcess.ts"
export type { PgServerOptions, PgServerShape, StopMode } from "./PgServer.ts"
export { PgServer } from "./PgServer.ts"
export * as PgSession from "./PgSession.ts"
