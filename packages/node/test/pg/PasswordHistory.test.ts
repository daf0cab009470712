import { assert, describe, it } from "@effect/vitest"
import { AuthenticationFailed } from "@replicant/core"
import { Redacted } from "effect"
import { PasswordHistory } from "../../src/pg/PasswordHistory.ts"

describe("PasswordHistory", () => {
  const refused = new AuthenticationFailed({ sqlState: "28P01", detail: "no", remedy: "a cure" })
  const history = (isPasswordAskedAnew = true) => {
    const made = new PasswordHistory({ isPasswordAskedAnew })
    return { ...made, accept: () => made.accept(), refuse: (text: string) => made.refuse(refused, Redacted.make(text)) }
  }

  it("[X1] takes a password that is refused at the first start for a mistake", () => {
    assert.isFalse(history().refuse("wrong").isRetryable)
  })

  it("[X1] asks again after a connection that held, until the same was refused twice", () => {
    const { accept, refuse } = history()
    accept()
    const first = refuse("old")
    assert.isTrue(first.isRetryable)
    assert.deepInclude(first, { sqlState: "28P01", detail: "no", remedy: "a cure" })
    assert.isTrue(refuse("newer").isRetryable)
    assert.isFalse(refuse("newer").isRetryable)
  })

  it("[X1] begins again with each connection that is let in", () => {
    const { accept, refuse } = history()
    accept()
    assert.isTrue(refuse("old").isRetryable)
    accept()
    assert.isTrue(refuse("old").isRetryable)
  })

  it("[X1] does not ask again for what cannot change", () => {
    const { accept, refuse } = history(false)
    accept()
    assert.isFalse(refuse("fixed").isRetryable)
  })

  it("[X1] gives up on a provider that is refused ten times in a row, whatever it gives", () => {
    const { accept, refuse } = history()
    accept()
    const retried = Array.from({ length: 10 }, (_, index) => refuse(`token ${index}`).isRetryable)
    assert.deepStrictEqual(retried, [...Array.from({ length: 9 }, () => true), false])
  })

  it("[X1] tells of characters on which client and server may differ, and not which", () => {
    for (const password of ["e\u0301😀", "\uFB01x", "❤\uFE0F🎉"]) {
      const { remedy } = history().refuse(password)
      assert.include(remedy, "Unicode")
      assert.notInclude(remedy, password)
    }
    assert.strictEqual(history().refuse("Grüße 😀").remedy, "a cure")
  })

  it("[X1] does not ask again where it was we who refused, or where there is no password", () => {
    const made = new PasswordHistory({ isPasswordAskedAnew: true })
    made.accept()
    const ours = new AuthenticationFailed({ sqlState: "", detail: "no" })
    assert.isFalse(made.refuse(ours, Redacted.make("p")).isRetryable)
    assert.isFalse(made.refuse(refused, undefined).isRetryable)
  })
})
