export * as Lsn from "./Lsn.ts"
