/** The public surface of `@replicant/node`. */
export * as Copy from "./copy/Copy.ts"
export * as DeadLetterFile from "./letters/DeadLetterFile.ts"
export { nodeText } from "./pg/NodeText.ts"
export * as PgConfig from "./pg/PgConfig.ts"
export * as PgWalSender from "./pg/PgWalSender.ts"
export * as FileSink from "./sink/FileSink.ts"
