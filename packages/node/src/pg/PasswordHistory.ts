/**
 * Whether to ask for a password again once the server has refused one.
 *
 * One is kept for each driver, over all its attempts. It keeps the password that was refused last, redacted, and nothing
 * else of it. Whether an attempt follows is for whoever connects to decide, by the error's `isRetryable`.
 */
import { AuthenticationFailed } from "@replicant/core"
import * as Redacted from "effect/Redacted"
import type { PgConfig } from "./PgConfig.ts"

/**
 * Whether SASLprep changes a password: spaces of other scripts, characters that it drops, and what NFKC folds.
 *
 * PostgreSQL leaves such a password as it is where it also holds what SASLprep forbids, as emoji do; `pg` changes it all
 * the same, and then the two differ.
 *
 * Source: https://www.rfc-editor.org/rfc/rfc4013 and `pg_saslprep`, src/common/saslprep.c
 */
const isChangedBySaslprep = (password: string): boolean =>
  password.normalize("NFKC") !== password || /\p{Default_Ignorable_Code_Point}/u.test(password)

const saslprepRemedy =
  "check the password; it holds characters that Unicode has several forms of, on which client and server may differ: without them it is safer"

/** A provider that gives another password each time may be refused this often in a row, and no more. */
const maxRefusals = 10

/**
 * What became of passwords so far, which decides whether asking again may help: not at the first start, where a wrong
 * password is a mistake; not when the same is given twice; but after a connection that held, when a password was changed.
 */
export class PasswordHistory {
  readonly #config: Pick<PgConfig, "isPasswordAskedAnew">
  #hasConnected = false
  #refused: Redacted.Redacted | undefined
  #refusals = 0

  constructor(config: Pick<PgConfig, "isPasswordAskedAnew">) {
    this.#config = config
  }

  /** A connection was let in. */
  accept(): void {
    this.#hasConnected = true
    this.#refused = undefined
    this.#refusals = 0
  }

  /** The server has asked for `password`, and did not let us in: the error says whether another attempt may help. */
  refuse(error: AuthenticationFailed, password: Redacted.Redacted | undefined): AuthenticationFailed {
    // Without a SQLSTATE it was we who refused.
    if (password === undefined || error.sqlState === "") return error
    const isSame = this.#refused !== undefined && Redacted.value(this.#refused) === Redacted.value(password)
    this.#refused = password
    this.#refusals += 1
    const isUncertain = error.sqlState === "28P01" && isChangedBySaslprep(Redacted.value(password))
    const fields = isUncertain ? { ...error, remedy: saslprepRemedy } : error
    const mayPass = this.#config.isPasswordAskedAnew && this.#hasConnected && !isSame && this.#refusals < maxRefusals
    return new AuthenticationFailed({ ...fields, mayPass })
  }
}
