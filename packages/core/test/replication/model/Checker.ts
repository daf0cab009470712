/**
 * Looks at every state a world can reach, or walks at random where there are too many; and says how it got to the first
 * one that breaks a law. Breadth first, so that the trace is a shortest one.
 */
import { PRNG } from "./PRNG.ts"
import * as Wal from "./Wal.ts"
import { type Action, type Client, type Faults, type Violation, World } from "./World.ts"

export interface Search {
  readonly wal: string
  readonly client: Client
  readonly faults: Faults
  /** Which laws to hold; all when left out. */
  readonly properties?: ReadonlyArray<Violation["property"]> | undefined
}

export interface Finding extends Violation {
  readonly trace: ReadonlyArray<string>
}

export interface Outcome {
  readonly states: number
  readonly transitions: number
  /** The longest of the shortest ways to a state. */
  readonly depth: number
  readonly finding: Finding | undefined
}

const tell = (world: World, action: Action): string => {
  switch (action._tag) {
    case "Read": {
      const pieces = world.wal.pieces.slice(world.cursor, world.cursor + action.pieces)
      return `read ${pieces.map(({ record, says }) => `${says} of ${record.name}`).join(" and ")}`
    }
    case "Handle":
    case "Acknowledge":
    case "AcknowledgeThrough": {
      const { isCurrent, record } = world.held[action.unit]!
      const how = action._tag === "AcknowledgeThrough" ? "acknowledge through" : action._tag.toLowerCase()
      return `${how} ${record.name}${isCurrent ? "" : " of the old connection"}`
    }
    default:
      return action._tag.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).toLowerCase()
  }
}

/** Takes a world through actions, and tells each in words, with what the two books and the slot say afterwards. */
const traceOf = (world: World, actions: ReadonlyArray<Action>): ReadonlyArray<string> => {
  return actions.map((action) => {
    const what = tell(world, action)
    world.apply(action)
    const { durable, pending, received } = world.progress
    return `${what.padEnd(36)} received ${received}, pending ${pending}, durable ${durable}, confirmed ${world.confirmed}`
  })
}

/** A finding as a test's failure prints it. */
export const format = ({ problem, property, trace }: Finding, wal: string): string => {
  const last = property === "progress" ? ["and from here on all goes well"] : []
  const steps = [...trace, ...last].map((step, index) => `${index + 1}. ${step}`)
  return [`${property}: ${problem} (WAL ${wal})`, ...steps].join("\n")
}

/** Every state that can be reached with these faults. */
export const search = ({ client, faults, properties, wal }: Search): Outcome => {
  const make = () => new World(Wal.fromText(wal), client, faults)
  const isLaw = (violation: Violation | undefined): violation is Violation =>
    violation !== undefined && (properties === undefined || properties.includes(violation.property))
  /** How a state was first reached: from which other, and by what. */
  const cameBy: Array<{ readonly from: number; readonly action: Action | undefined }> = [{ from: 0, action: undefined }]
  const seen = new Set([make().key])
  let level: Array<{ readonly id: number; readonly world: World }> = [{ id: 0, world: make() }]
  let transitions = 0
  let depth = 0
  const found = (violation: Violation, from: number, last: ReadonlyArray<Action>): Outcome => {
    const actions = [...last]
    for (let id = from; id !== 0; id = cameBy[id]!.from) actions.unshift(cameBy[id]!.action!)
    const finding = { ...violation, trace: traceOf(make(), actions) }
    return { states: seen.size, transitions, depth, finding }
  }
  while (level.length > 0) {
    const nextLevel: typeof level = []
    for (const { id, world } of level) {
      for (const action of world.actions()) {
        const next = world.clone()
        next.apply(action)
        transitions++
        if (isLaw(next.violation)) return found(next.violation, id, [action])
        next.violation = undefined
        const { key } = next
        if (seen.has(key)) continue
        seen.add(key)
        nextLevel.push({ id: cameBy.push({ from: id, action }) - 1, world: next })
      }
      world.finish()
      if (isLaw(world.violation)) return found(world.violation, id, [])
    }
    level = nextLevel
    if (level.length > 0) depth++
  }
  return { states: seen.size, transitions, depth, finding: undefined }
}

export interface Walks {
  readonly client: Client
  readonly seed: number
  readonly walks: number
  readonly steps: number
  /** How many records of WAL a walk has. */
  readonly records: number
}

/** Random walks over random WAL, with faults at any time; each ends with all going well. */
export const walk = ({ client, records, seed, steps, walks }: Walks): Outcome => {
  const random = new PRNG(seed)
  let transitions = 0
  for (let index = 0; index < walks; index++) {
    const wal = randomWal(random, records)
    const faults = { reconnects: steps, clientCrashes: steps, serverCrashes: steps }
    const make = () => new World(Wal.fromText(wal), client, faults)
    const world = make()
    const taken: Array<Action> = []
    for (let step = 0; step < steps && world.violation === undefined; step++) {
      const action = random.pick([...world.actions()].filter((action) => !isFault(action) || random.chance(0.1)))
      taken.push(action)
      world.apply(action)
      transitions++
    }
    if (world.violation === undefined) world.finish()
    if (world.violation !== undefined) {
      const trace = [`seed ${seed}, walk ${index}, WAL ${wal}`, ...traceOf(make(), taken)]
      return { states: 0, transitions, depth: taken.length, finding: { ...(world.violation as Violation), trace } }
    }
  }
  return { states: 0, transitions, depth: steps, finding: undefined }
}

const isFault = ({ _tag }: Action): boolean => _tag === "Reconnect" || _tag === "CrashClient" || _tag === "CrashServer"

/** Blocks of a streamed transaction stand before its commit, and there is one such transaction or none. */
const randomWal = (random: PRNG, records: number): string => {
  const letters = Array.from({ length: records }, () => random.pick([..."TTTT--MEX"]))
  if (random.chance(0.5)) {
    const commit = 1 + random.below(records - 1)
    letters[commit] = "S"
    for (let at = 0; at < commit; at++) if (random.chance(0.3)) letters[at] = "["
  }
  return letters.join("")
}
