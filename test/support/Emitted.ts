/**
 * Everything that a program lets out beside its result: log messages of all levels with causes, annotations and spans;
 * the spans of a tracer with attributes, events and how they ended; metrics with their labels. As text, the way the
 * most talkative of loggers and exporters would have it, so that a test can look for what must not be in it.
 */
import * as Inspect from "node:util"
import { Cause, type Context, Effect, type Exit, Layer, Logger, Metric, Option, References, Tracer } from "effect"

/** As deep as there is anything, with what is not enumerable, and without calling what an object says of itself. */
const inspections: ReadonlyArray<Inspect.InspectOptions> = [
  { depth: 20, showHidden: true, customInspect: false, maxStringLength: null, maxArrayLength: null, breakLength: 200 },
  { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null, breakLength: 200 }
]

const asJson = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? ""
  } catch (error) {
    return `not JSON: ${String(error)}`
  }
}

/** A value as text in every way that somebody may print it. */
export const printed = (value: unknown): ReadonlyArray<string> => [
  String(value),
  asJson(value),
  ...inspections.map((options) => Inspect.inspect(value, options)),
  ...(value instanceof Error ? [value.message, value.stack ?? "", value.toString()] : []),
  ...(Cause.isCause(value) ? [Cause.pretty(value), ...value.reasons.flatMap((reason) => printed(reason))] : [])
]

/** A piece of what was let out. */
export interface Emission {
  readonly by: "log" | "span" | "metric" | "failure"
  readonly text: string
}

export interface Emitted {
  readonly all: Array<Emission>
  /** For the program that is listened to. */
  readonly layer: Layer.Layer<never>
  /** Adds the metrics as they are now. */
  readonly readMetrics: Effect.Effect<void>
  /** Adds what a program failed with, a cause or an error. */
  readonly failed: (failure: unknown) => void
}

/** Listens. What is printed is printed at once: later it may be something else. */
export const listen = (): Emitted => {
  const all: Array<Emission> = []
  const add = (by: Emission["by"], ...values: ReadonlyArray<unknown>): void => {
    for (const value of values) all.push(...printed(value).map((text) => ({ by, text })))
  }
  const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
    add("log", logLevel, message, cause)
    add("log", fiber.getRef(References.CurrentLogAnnotations), fiber.getRef(References.CurrentLogSpans))
  })
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      add(
        "span",
        options.name,
        options.links.map((link) => link.attributes),
        annotationsOf(options.annotations)
      )
      return new Proxy(span, {
        get: (target, key) => {
          if (key === "end") {
            return (at: bigint, exit: Exit.Exit<unknown, unknown>) => {
              add("span", ...(exit._tag === "Failure" ? [exit.cause] : []))
              target.end(at, exit)
            }
          }
          if (key === "attribute") {
            return (name: string, value: unknown) => {
              add("span", name, value)
              target.attribute(name, value)
            }
          }
          if (key === "event") {
            return (name: string, at: bigint, attributes?: Record<string, unknown>) => {
              add("span", name, attributes)
              target.event(name, at, attributes)
            }
          }
          const value: unknown = Reflect.get(target, key, target)
          return typeof value === "function" ? value.bind(target) : value
        }
      })
    }
  })
  return {
    all,
    layer: Layer.mergeAll(
      Logger.layer([logger]),
      Layer.succeed(Tracer.Tracer, tracer),
      Layer.succeed(References.MinimumLogLevel, "All")
    ),
    readMetrics: Effect.map(Metric.snapshot, (metrics) => add("metric", metrics)),
    failed: (failure) => add("failure", failure)
  }
}

const annotationsOf = (context: Context.Context<never>): ReadonlyArray<unknown> =>
  Array.from(context.mapUnsafe.values()).map((value) => (Option.isOption(value) ? Option.getOrUndefined(value) : value))
