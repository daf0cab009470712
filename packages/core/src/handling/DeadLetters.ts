/**
 * Where changes wait that cannot be handled: with their place, what they failed of, and how often. The public module
 * `DeadLetters`.
 *
 * A change counts as handled once it is here, so what is lost here is lost: a store has to be as durable as the target.
 */
export { type DeadLetter, DeadLettersError, type Letter, type LetterName, LetterState } from "./Letter.ts"
export { DeadLetters, type DeadLettersShape, type LetterStorage, make, memory } from "./LetterStore.ts"
export { sql } from "./LetterTable.ts"
export { decode, encode } from "./LetterText.ts"
