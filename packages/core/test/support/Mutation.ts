/** Ways to damage bytes that were right: what a broken cable, a broken server or an attacker may make of a golden. */
import type { Random } from "./Random.ts"

/** Bytes at the edges of their range, and those that tell messages, columns, JSON and arrays apart. */
const telling = [0x00, 0x01, 0x7f, 0x80, 0xff, ...Buffer.from('BCDIMORTUYSEcAbPKrpNKOntu{}[],;:"\\-+.eE0 19')]

/** Lengths and counts that lie. */
const lies = [0, 1, -1, 2, 4, 5, 0x7fff, -0x8000, 0xffff, 0x10000, 0x7ff_ffff, 0x800_0000, 0x7fff_ffff, -0x8000_0000]

/** No input grows beyond this: so that what a mutation costs is what its bytes cost. */
const longest = 1 << 16

type Mutate = (bytes: Buffer, random: Random, other: Uint8Array) => Buffer

/** Two places in order, the second up to `bytes.length`. */
const range = (bytes: Buffer, random: Random): readonly [from: number, to: number] => {
  const from = random.below(bytes.length + 1)
  return [from, from + random.below(bytes.length - from + 1)]
}

const replaced = (bytes: Buffer, at: number, by: Uint8Array): Buffer =>
  Buffer.concat([bytes.subarray(0, at), by, bytes.subarray(at + by.length)])

const mutations: ReadonlyArray<Mutate> = [
  (bytes, random) => {
    const at = random.below(bytes.length)
    return replaced(bytes, at, Uint8Array.of(bytes[at]! ^ (1 << random.below(8))))
  },
  (bytes, random) => replaced(bytes, random.below(bytes.length), Uint8Array.of(random.pick(telling))),
  (bytes, random) => {
    const lie = Buffer.alloc(4)
    lie.writeInt32BE(random.pick(lies) | 0)
    return replaced(bytes, random.below(bytes.length), lie)
  },
  (bytes, random) => {
    const lie = Buffer.alloc(2)
    lie.writeUInt16BE(random.pick(lies) & 0xffff)
    return replaced(bytes, random.below(bytes.length), lie)
  },
  (bytes, random) => bytes.subarray(0, random.below(bytes.length)),
  (bytes, random) => bytes.subarray(random.below(bytes.length)),
  (bytes, random) => {
    const [from, to] = range(bytes, random)
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)])
  },
  (bytes, random) => {
    const [at] = range(bytes, random)
    const inserted = Buffer.from(Array.from({ length: 1 + random.below(8) }, () => random.pick(telling)))
    return Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)])
  },
  // The same again, and again.
  (bytes, random) => {
    const [from, to] = range(bytes, random)
    const times = random.chance(20) ? 1 + random.below(64) : 1
    const repeated = Array.from({ length: times }, () => bytes.subarray(from, to))
    return Buffer.concat([bytes.subarray(0, to), ...repeated, bytes.subarray(to)])
  },
  // The beginning of one and the end of another.
  (bytes, random, other) =>
    Buffer.concat([bytes.subarray(0, random.below(bytes.length + 1)), other.subarray(random.below(other.length + 1))]),
  // Two pieces change places.
  (bytes, random) => {
    const [from, to] = range(bytes, random)
    const middle = from + random.below(to - from + 1)
    return Buffer.concat([
      bytes.subarray(0, from),
      bytes.subarray(middle, to),
      bytes.subarray(from, middle),
      bytes.subarray(to)
    ])
  }
]

/** One of `corpus` with one to three damages. The result is fresh; the corpus is left alone. */
export const mutate = (corpus: ReadonlyArray<Uint8Array>, random: Random): Uint8Array => {
  let bytes = Buffer.from(random.pick(corpus))
  for (let count = 1 + random.below(3); count > 0; count--) {
    const mutation = bytes.length === 0 ? mutations[7]! : random.pick(mutations)
    bytes = Buffer.from(mutation(bytes, random, random.pick(corpus)).subarray(0, longest))
  }
  return new Uint8Array(bytes)
}

/** The same for messages that follow one another: one is damaged, or they change places, are lost, or come twice. */
export const mutateSequence = (
  sequences: ReadonlyArray<ReadonlyArray<Uint8Array>>,
  random: Random
): ReadonlyArray<Uint8Array> => {
  const messages = [...random.pick(sequences)]
  const stranger = random.pick(random.pick(sequences))
  const at = random.below(messages.length)
  const kind = random.below(10)
  if (kind === 0) messages.splice(at, 1)
  else if (kind === 1) messages.splice(at, 0, messages[random.below(messages.length)]!)
  else if (kind === 2) messages.splice(at, 0, stranger)
  else if (kind === 3) messages.push(messages.splice(at, 1)[0]!)
  else messages[at] = mutate([messages[at]!, messages[at]!, stranger], random)
  return messages
}
