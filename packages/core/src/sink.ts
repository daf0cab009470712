/** For whoever brings changes into an engine that keeps messages in order: `@replicant/core/sink`. */
export * as Debezium from "./sink/Debezium.ts"
export * as Envelope from "./sink/Envelope.ts"
export * from "./sink/Message.ts"
export * as Place from "./sink/Place.ts"
export * as Route from "./sink/Route.ts"
export * from "./sink/SinkError.ts"
export * as Sink from "./sink/Sinks.ts"
export * as ValueJson from "./sink/ValueJson.ts"
