/** Servers to test against: `@replicant/node/testing`. */
export { PgServerFailed } from "./PgProcess.ts"
export type { PgServerOptions, PgServerShape, StopMode } from "./PgServer.ts"
export { PgServer } from "./PgServer.ts"
export * as PgSession from "./PgSession.ts"
