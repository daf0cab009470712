/** The public surface of `@replicant/nats`. */
export * as NatsSink from "./sink/NatsSink.ts"
export * as NatsSource from "./sink/NatsSource.ts"
