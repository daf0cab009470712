/** A NATS to test against, from the machine's own `nats-server`: `@replicant/nats/testing`. */
export { NatsServer, NatsServerFailed, type NatsServerOptions, type NatsServerShape } from "./NatsServer.ts"
