/**
 * The script of the page, as it is sent: JavaScript that a browser runs as it stands. Text goes in by `textContent` alone, so that
 * nothing a server says is taken for markup. What it keeps is bounded: points of its charts, and failures.
 */
export const script = String.raw`
const points = 600, failuresKept = 10, silence = 5000
const streams = new Map()
const main = document.getElementById("streams")

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

const units = ["B", "kB", "MB", "GB", "TB", "PB"]
/** As the commands write them: PostgreSQL's units of 1024. */
const bytes = (count) => {
  let value = count, unit = 0
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return (unit === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(1))) + " " + units[unit]
}
const rate = (value) => bytes(value) + "/s"
const time = (seconds) =>
  seconds < 120 ? Math.round(seconds) + " s" : seconds < 7200 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h"
const known = (value, format) => (value === undefined || value === null ? "not known" : format(value))
const count = (value) => value.toLocaleString("en")

const position = (lsn) => {
  const [high, low] = lsn.split("/")
  return (BigInt("0x" + high) << 32n) + BigInt("0x" + low)
}

/** A line over time, from zero to the most there is. */
const chart = (title, format) => {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline")
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.setAttribute("viewBox", "0 0 " + points + " 100")
  svg.setAttribute("preserveAspectRatio", "none")
  svg.setAttribute("role", "img")
  svg.append(line)
  const caption = make("figcaption")
  const values = []
  return {
    element: make("figure", {}, svg, caption),
    add(value) {
      values.push(value)
      if (values.length > points) values.shift()
      const there = values.filter((one) => one !== undefined)
      const most = Math.max(...there, 1e-9)
      const from = points - values.length
      line.setAttribute("points", values.map((one, at) => (one === undefined ? "" : from + at + "," + (98 - (96 * one) / most))).join(" ").trim())
      const text = title + ": " + known(value, format) + ", at most " + known(there.length > 0 ? Math.max(...there) : undefined, format)
      caption.textContent = text
      svg.setAttribute("aria-label", text)
    }
  }
}

const say = (element, status, text) => {
  element.dataset.status = status
  if (element.textContent !== text) element.textContent = text
}

const list = (element, pairs) => {
  while (element.children.length > pairs.length) element.lastChild.remove()
  pairs.forEach(([name, value], at) => {
    const row = element.children[at] ?? element.appendChild(make("div", {}, make("dt"), make("dd")))
    row.firstChild.textContent = name
    row.lastChild.textContent = value
  })
}

const items = (element, texts) => {
  if (element.dataset.shown === texts.join("\n")) return
  element.dataset.shown = texts.join("\n")
  element.replaceChildren(...texts.map((text) => make("li", {}, text)))
}

const finding = ({ consequence, cure, seen, severity }) =>
  make("li", {}, make("strong", {}, severity + ": " + seen),
    ...[consequence, cure.advice].filter((text) => text !== undefined).map((text) => make("p", {}, text)),
    ...(cure.sql.length > 0 ? [make("pre", {}, cure.sql.map((statement) => statement.replace(/;?$/, ";")).join("\n"))] : []))

const doctor = (at) => {
  const button = make("button", { type: "button" }, "Ask the doctor")
  const found = make("div", { "aria-live": "polite" })
  button.addEventListener("click", async () => {
    button.disabled = true
    found.textContent = "It looks."
    try {
      const response = await fetch("/doctor/" + at)
      if (!response.ok) throw new Error(String(response.status))
      const { checked, findings } = await response.json()
      found.replaceChildren(
        findings.length === 0 ? "All is well: " + checked.length + " checks." : make("ul", {}, ...findings.map(finding)))
    } catch {
      found.textContent = "It could not be asked."
    }
    button.disabled = false
    button.focus()
  })
  return make("div", {}, button, found)
}

const card = (slot, at, hasDoctor) => {
  const badge = make("p", { class: "badge", role: "status" })
  const parts = {
    reasons: make("ul", { class: "reasons" }), facts: make("dl"),
    copyTitle: make("h3", {}, "First copy"), bar: make("progress", { "aria-label": "First copy of " + slot }), copy: make("p"),
    budgetTitle: make("h3", {}, "What the server keeps"), budget: make("dl"),
    failuresTitle: make("h3", {}, "Last failures"), failures: make("ul", { class: "failures" })
  }
  const lag = chart("Behind", time), flow = chart("WAL acknowledged", rate)
  const failures = []
  let before
  const element = make("section", { "aria-label": slot }, make("header", {}, make("h2", {}, slot), badge), parts.reasons,
    parts.facts, parts.copyTitle, parts.bar, parts.copy, make("div", { class: "charts" }, lag.element, flow.element),
    parts.budgetTitle, parts.budget, parts.failuresTitle, parts.failures, ...(hasDoctor ? [doctor(at)] : []))
  main.append(element)
  const remember = (failure, now) => {
    const text = failure.tag + ": " + failure.message + (failure.remedy === undefined ? "" : ". Cure: " + failure.remedy)
    if (failures.at(-1)?.text === text) return
    failures.push({ text, at: new Date(now - failure.agoSeconds * 1000).toLocaleTimeString() })
    if (failures.length > failuresKept) failures.shift()
  }
  return ({ budget, health, seen }) => {
    say(badge, health.status, health.status + (seen === undefined ? "" : ": " + seen.state))
    items(parts.reasons, health.reasons.map(({ says, status }) => status + ": " + says))
    list(parts.facts, seen === undefined ? [] : [
      ["Behind", time(seen.lagSeconds)], ["Behind, in WAL", known(seen.lagBytes, bytes)], ["Not acknowledged", count(seen.pending)],
      ["Acknowledged up to", seen.acknowledged], ["Handler busy for", seen.handlingSeconds === undefined ? "idle" : time(seen.handlingSeconds)]
    ])
    const copy = seen?.copy
    for (const part of [parts.copyTitle, parts.bar, parts.copy]) part.hidden = copy === undefined
    if (copy !== undefined) {
      if (copy.estimatedRows > 0) { parts.bar.max = Math.max(copy.estimatedRows, copy.rows); parts.bar.value = copy.rows }
      else parts.bar.removeAttribute("value")
      parts.copy.textContent = count(copy.rows) + " rows, " + copy.tablesDone + " of " + copy.tables + " tables, " +
        known(copy.rowsPerSecond, (value) => count(Math.round(value)) + " rows/s") + ", remaining: " + known(copy.remainingSeconds, time)
    }
    const now = seen === undefined ? undefined : { at: seen.at, lsn: position(seen.acknowledged) }
    const moved = now !== undefined && before !== undefined && before.lsn > 0n && now.at > before.at
    lag.add(seen?.lagSeconds)
    flow.add(moved ? Math.max(0, Number(now.lsn - before.lsn) / ((now.at - before.at) / 1000)) : undefined)
    before = now
    parts.budgetTitle.hidden = budget === undefined
    list(parts.budget, budget === undefined ? [] : [
      ["Level", budget.level], ["Kept", known(budget.retainedBytes, bytes)], ["May yet be written", known(budget.safeBytes, bytes)],
      ["Written", known(budget.writtenPerSecond, rate)], ["Lost in", known(budget.millisUntilLost, (value) => time(value / 1000))],
      ["As of", time(budget.unseenMillis / 1000) + " ago"]
    ])
    if (seen?.lastFailure !== undefined) remember(seen.lastFailure, seen.at)
    parts.failuresTitle.hidden = failures.length === 0
    items(parts.failures, failures.map(({ at, text }) => at + " " + text))
  }
}

const overall = document.getElementById("status")
let heardAt = performance.now()
const source = new EventSource("/events")
source.onmessage = ({ data }) => {
  heardAt = performance.now()
  const picture = JSON.parse(data)
  say(overall, picture.status, picture.status)
  document.title = picture.status + " - Replicant"
  picture.streams.forEach((stream, at) => {
    if (!streams.has(at)) streams.set(at, card(stream.slot, at, stream.hasDoctor))
    streams.get(at)(stream)
  })
}
/* A picture that no longer comes must not pass for the present. */
setInterval(() => {
  if (performance.now() - heardAt < silence) return
  for (const badge of document.querySelectorAll(".badge")) say(badge, "failing", "no word from the process")
  document.title = "no word - Replicant"
}, 1000)
`
