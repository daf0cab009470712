/**
 * Looks at every state that a world can reach, or walks at random where there are too many; and says how it got to the first
 * one that breaks a law. Breadth first, so that the way is a shortest one.
 */
import { Random } from "../../support/Random.ts"
import type { Client } from "./Client.ts"
import { type Action, type Fault, isFault, type Scenario, type Violation, World } from "./World.ts"

export interface Finding extends Violation {
  readonly trace: ReadonlyArray<string>
}

export interface Outcome {
  readonly states: number
  readonly finding: Finding | undefined
}

/** A way in words, with the phase that each step leads to. */
const traceOf = (scenario: Scenario, client: Client, actions: ReadonlyArray<Action>): ReadonlyArray<string> => {
  const world = new World(scenario, client)
  return actions.map((action) => {
    const script = scenario.script.split(" ")
    const what = "index" in action ? `${action._tag} ${script[action.index]}` : action._tag
    world.apply(action)
    const { phase } = world.job
    const rows = Array.from(world.target.rows.values(), ({ big, id, note }) => `${id}:${note}:${big}`).join(" ")
    return `${what.padEnd(16)} ${phase._tag}, worker ${world.worker._tag}; target ${rows}`
  })
}

/** A finding as a test's failure prints it. */
export const format = ({ law, problem, trace }: Finding): string =>
  [`${law}: ${problem}`, ...trace.map((step, index) => `${index + 1}. ${step}`)].join("\n")

/** Every state that can be reached. */
export const search = (scenario: Scenario, client: Client): Outcome => {
  const cameBy: Array<{ readonly from: number; readonly action: Action | undefined }> = [{ from: 0, action: undefined }]
  const first = new World(scenario, client)
  const seen = new Set([first.key])
  let level: Array<{ readonly id: number; readonly world: World }> = [{ id: 0, world: first }]
  const found = (violation: Violation, from: number, last: ReadonlyArray<Action>): Outcome => {
    const actions = [...last]
    for (let id = from; id !== 0; id = cameBy[id]!.from) actions.unshift(cameBy[id]!.action!)
    return { states: seen.size, finding: { ...violation, trace: traceOf(scenario, client, actions) } }
  }
  while (level.length > 0) {
    const nextLevel: typeof level = []
    for (const { id, world } of level) {
      const actions = world.actions()
      for (const action of actions) {
        const next = world.clone()
        next.apply(action)
        if (next.violation !== undefined) return found(next.violation, id, [action])
        const { key } = next
        if (seen.has(key)) continue
        seen.add(key)
        nextLevel.push({ id: cameBy.push({ from: id, action }) - 1, world: next })
      }
      if (!actions.every(isFault)) continue
      world.checkEnd()
      if (world.violation !== undefined) return found(world.violation, id, [])
    }
    level = nextLevel
  }
  return { states: seen.size, finding: undefined }
}

const faults: ReadonlyArray<Fault> = ["Pause", "CutReader", "Disconnect", "Crash", "Rerun", "Gap", "Alter", "Cancel"]

/** What somebody writes at random to some of these rows. */
const randomScript = (random: Random, ids: string, transactions: number): string => {
  const statement = (): string => {
    const id = random.pick([...ids])
    const kind = random.pick([..."uuUmmMdii"])
    return kind === "m" || kind === "M" ? `${kind}${id}>${random.pick([...ids])}` : `${kind}${id}`
  }
  const one = (): string => {
    if (random.chance(4)) return "t"
    const statements = Array.from({ length: 1 + random.below(3) }, statement)
    return `${random.chance(15) ? "!" : ""}${statements.join("+")}`
  }
  return Array.from({ length: transactions }, one).join(" ")
}

const randomScenario = (random: Random): Scenario => {
  const ids = "abcdef".slice(0, 2 + random.below(5))
  return {
    rows: [...ids].filter(() => random.chance(70)).join(""),
    script: randomScript(random, ids, 1 + random.below(8)),
    faults: Array.from({ length: random.below(5) }, () => random.pick(faults)).filter(
      (fault) => fault !== "Cancel" || random.chance(30)
    ),
    chunk: 1 + random.below(3),
    maxBytes: random.chance(30) ? 300 : 1e6
  }
}

export interface Walks {
  readonly seed: number
  readonly walks: number
  readonly steps: number
  /** One at random for each walk when left out. */
  readonly scenario?: Scenario | undefined
}

/** Random walks over random scripts, with faults at any time; each ends with all going well. */
export const walk = ({ scenario: given, seed, steps, walks }: Walks, client: Client): Outcome => {
  let states = 0
  for (let index = 0; index < walks; index++) {
    const random = new Random(seed + index)
    const scenario = given ?? randomScenario(random)
    const world = new World(scenario, client)
    const taken: Array<Action> = []
    for (let step = 0; step < steps && world.violation === undefined; step++) {
      const actions = world.actions().filter((action) => !isFault(action) || random.chance(15))
      if (actions.length === 0) break
      const action = random.pick(actions)
      taken.push(action)
      world.apply(action)
      states += 1
    }
    if (world.violation === undefined) world.finish()
    if (world.violation !== undefined) {
      const trace = [`seed ${seed + index}: ${JSON.stringify(scenario)}`, ...traceOf(scenario, client, taken)]
      return { states, finding: { ...(world.violation as Violation), trace } }
    }
  }
  return { states, finding: undefined }
}
