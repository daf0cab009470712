/** The public surface of `@replicant/node`. */
export { nodeText } from "./NodeText.ts"
export * as PgConfig from "./PgConfig.ts"
export * as PgWalSender from "./PgWalSender.ts"
