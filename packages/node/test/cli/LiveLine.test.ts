import { assert, describe, it } from "@effect/vitest"
import { LiveLine } from "../../src/cli/LiveLine.ts"

const screen = (isTTY: boolean, columns = 20) => {
  let text = ""
  const line = new LiveLine({ isTTY, columns, write: (part) => (text += part) })
  return { line, text: () => text }
}

const clear = "\r\u001b[K"

describe("LiveLine", () => {
  it("rewrites the status in place, cut to the terminal's width", () => {
    const { line, text } = screen(true, 10)
    line.show("first")
    line.show("a status too long")
    assert.strictEqual(text(), `${clear}first${clear}a status `)
  })

  it("writes other lines above the status", () => {
    const { line, text } = screen(true)
    line.show("status")
    line.writeLine("warning: x")
    assert.strictEqual(text(), `${clear}status${clear}warning: x\nstatus`)
  })

  it("leaves the terminal clean", () => {
    const { line, text } = screen(true)
    line.show("status")
    line.hide()
    line.hide()
    line.writeLine("end")
    assert.strictEqual(text(), `${clear}status${clear}end\n`)
  })

  it("is an ordinary line where there is no terminal", () => {
    const { line, text } = screen(false)
    line.show("status")
    line.hide()
    line.writeLine("end")
    assert.strictEqual(text(), "status\nend\n")
  })

  it("makes room for what another stream writes, and comes back", () => {
    const { line, text } = screen(true)
    line.show("status")
    line.makeRoom()
    line.redraw()
    assert.strictEqual(text(), `${clear}status${clear}status`)
  })

  it("rewrites several lines in place, as many as fit the screen, and takes all of them away", () => {
    let text = ""
    const line = new LiveLine({ isTTY: true, columns: 20, rows: 4, write: (part) => (text += part) })
    line.show("one", "two", "three", "four")
    line.show("one")
    line.hide()
    const up = `\u001b[A${clear}`
    assert.strictEqual(text, `${clear}one\ntwo\nthree${clear}${up}${up}one${clear}`)
  })

  it("writes other lines above several, and shows them again", () => {
    const { line, text } = screen(true)
    line.show("one", "two")
    line.writeLine("warning: x")
    assert.strictEqual(text(), `${clear}one\ntwo${clear}\u001b[A${clear}warning: x\none\ntwo`)
  })
})
