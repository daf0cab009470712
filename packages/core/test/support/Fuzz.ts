/**
 * The laws of a decoder under damaged bytes, and the loop that tries them: it gives a value or throws `DecodeError`, it
 * comes back within a second, and what it gives is not larger than a constant times what it was given.
 *
 * A failure names its seed, its round and its bytes. `FUZZ_SEED=…` runs the same again, `FUZZ_ROUNDS=…` more or fewer than
 * 100,000 in all.
 */
import { randomInt } from "node:crypto"
import * as Vm from "node:vm"
import { it } from "@effect/vitest"
import { DecodeError } from "../../src/ReplicationError.ts"
import { cpuMillis } from "./cpuMillis.ts"
import { Random } from "./Random.ts"

const fromEnvironment = (name: string, otherwise: number): number => {
  const text = process.env[name]
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} is no whole number: ${text}`)
  return value
}

export const fuzzSeed = fromEnvironment("FUZZ_SEED", randomInt(2 ** 31))

/** Of all targets together. */
export const fuzzRounds = fromEnvironment("FUZZ_ROUNDS", 100_000)

/** Milliseconds that one input may take on a machine that is busy with other things. */
const longestMillis = 1000

/** How many rounds the watchdog watches at a time. */
const batch = 250

/**
 * How much a value holds, in bytes as near as matters: characters, elements, properties, whole buffers behind views. Never
 * deeper than the value goes, and what is reached twice counts once.
 */
export const weigh = (value: unknown): number => {
  const seen = new Set<unknown>()
  const left: Array<unknown> = [value]
  let weight = 0
  while (left.length > 0) {
    const next = left.pop()
    if (typeof next === "string") weight += next.length
    else if (typeof next === "bigint") weight += 8 + next.toString(16).length / 2
    else if (typeof next !== "object" || next === null) weight += 8
    else if (!seen.has(next)) {
      seen.add(next)
      if (ArrayBuffer.isView(next)) {
        weight += seen.has(next.buffer) ? 0 : next.buffer.byteLength
        seen.add(next.buffer)
      } else if (Array.isArray(next)) {
        weight += 8 * next.length
        for (const item of next) left.push(item)
      } else {
        const values = Object.values(next)
        weight += 16 * values.length
        for (const item of values) left.push(item)
      }
    }
  }
  return weight
}

export interface FuzzTarget {
  /** What is promised, as a test's title. */
  readonly title: string
  /** How many of a hundred rounds are for this one. */
  readonly share: number
  /** The damaged input of a round: what is shown of it when it fails, and counted when its value is weighed. */
  readonly input: (random: Random) => ReadonlyArray<Uint8Array>
  /** The decoder. It may throw `DecodeError`; the value that it returns is weighed. */
  readonly decode: (input: ReadonlyArray<Uint8Array>, random: Random) => unknown
  /** What a value may weigh that came of `length` bytes: 64 times as much and 4 kB unless told otherwise. */
  readonly mostWeight?: ((length: number) => number) | undefined
}

const defaultWeight = (length: number): number => 64 * length + 4096

const describeInput = (input: ReadonlyArray<Uint8Array>): string =>
  input.map((bytes) => Buffer.from(bytes).toString("hex").slice(0, 4000)).join("\n")

const roundSeed = (round: number): number => (fuzzSeed ^ Math.imul(round + 1, 0x9e37_79b1)) >>> 0

const key = Symbol.for("@replicant/core/test/fuzz")

/** Runs `body`, and ends it if it does not come back: only a watchdog outside JavaScript can end a loop in it. */
export const withWatchdog = (body: () => void, timeout: number): void => {
  Object.assign(globalThis, { [key]: body })
  new Vm.Script(`globalThis[Symbol.for(${JSON.stringify(Symbol.keyFor(key))})]()`).runInThisContext({ timeout })
}

/** Adds a test that puts a target through its share of rounds. */
export const fuzz = ({ decode, input, mostWeight = defaultWeight, share, title }: FuzzTarget): void => {
  const rounds = Math.ceil((fuzzRounds * share) / 100)
  it(`${title}, ${rounds} times (seed ${fuzzSeed})`, { timeout: 120_000 }, () => {
    let round = 0
    let bytes: ReadonlyArray<Uint8Array> = []
    const fail = (problem: string, cause?: unknown): never => {
      throw new Error(`FUZZ_SEED=${fuzzSeed}, round ${round}: ${problem}\n${describeInput(bytes)}`, { cause })
    }
    const one = (): void => {
      const random = new Random(roundSeed(round))
      bytes = input(random)
      const start = cpuMillis()
      let value: unknown
      try {
        value = decode(bytes, random)
      } catch (error) {
        if (!(error instanceof DecodeError)) fail(`threw what is no DecodeError: ${String(error)}`, error)
        value = error
      }
      const millis = cpuMillis() - start
      if (millis > longestMillis) fail(`took ${millis} ms`)
      const length = bytes.reduce((sum, { length }) => sum + length, 0)
      const weight = weigh(value)
      if (weight > mostWeight(length)) fail(`came to ${weight} bytes, out of ${length}`)
    }
    while (round < rounds) {
      const end = Math.min(rounds, round + batch)
      try {
        withWatchdog(() => {
          for (; round < end; round++) one()
        }, 20 * longestMillis)
      } catch (error) {
        if ((error as { readonly code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") fail("did not come back")
        throw error
      }
    }
  })
}
