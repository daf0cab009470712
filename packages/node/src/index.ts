/** The public surface of `@replicant/node`. */
export * as Copy from "./copy/Copy.ts"
export { nodeText } from "./NodeText.ts"
export * as PgConfig from "./PgConfig.ts"
export * as PgWalSender from "./PgWalSender.ts"
