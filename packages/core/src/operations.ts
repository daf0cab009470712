/** For whoever keeps streams running: what a server's slots and a program's streams are asked, as values. */
export * as Metrics from "./replication/Metrics.ts"
