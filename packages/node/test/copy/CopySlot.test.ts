/** The name of a copy's slot, where none is given. */
import { assert, describe, it } from "@effect/vitest"
import { Copy } from "@replicant/node"

describe("a copy's slot without a name", () => {
  it("bears the name of the source's database", () => {
    assert.strictEqual(Copy.defaultSlot("shop"), "replicant_copy_shop")
    const longest = "x".repeat(48)
    assert.strictEqual(Copy.defaultSlot(longest), `replicant_copy_${longest}`)
  })

  it("is the same in every version: a copy is gone on with by its name", () => {
    assert.strictEqual(Copy.defaultSlot("Shop"), "replicant_copy__hop_b82y15")
    assert.strictEqual(Copy.defaultSlot("shop-eu"), "replicant_copy_shop_eu_z1l26y")
  })

  it("is a name that slots may have, another for each database", () => {
    const databases = ["Shop", "shop-eu", "shop_eu", "shop eu", "\u00e9t\u00e9", "x".repeat(63), `${"x".repeat(62)}y`]
    const names = databases.map(Copy.defaultSlot)
    for (const name of names) assert.match(name, /^replicant_copy_[a-z0-9_]{1,48}$/)
    assert.lengthOf([...new Set(names)], databases.length)
  })
})
