/** A program that parks letters in a file until it is killed, and tells the number of each that is parked. */
import { writeSync } from "node:fs"
import { DeadLetters } from "@replicant/core"
import { LetterLaws } from "@replicant/core/testing"
import { DeadLetterFile } from "@replicant/node"
import { Effect } from "effect"

const [path = "", from = "0"] = process.argv.slice(2)

const parking = Effect.gen(function* () {
  const letters = yield* DeadLetters.DeadLetters
  for (let n = Number(from); ; n++) {
    yield* letters.park(LetterLaws.letter(n, `${n}`))
    writeSync(1, `${n}\n`)
    // Some are handled again, so that the file is written anew now and then.
    if (n % 3 === 0) {
      yield* letters.handled(LetterLaws.letter(n, `${n}`))
      writeSync(1, `-${n}\n`)
    }
  }
})

Effect.runFork(Effect.provide(parking, DeadLetterFile.layer({ path })))
