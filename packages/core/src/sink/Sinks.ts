/** The public module `Sink`: the port to an engine, the handler that a sink is, and a sink in memory. */
export { appended, type FlightOptions, reopened } from "./Flight.ts"
export { Sink, type SinkShape, type SinkWriter } from "./Sink.ts"
export { handler, type Options, run } from "./SinkHandler.ts"
export { Memory, type MemoryShape, memory } from "./SinkMemory.ts"
