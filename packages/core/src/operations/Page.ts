/** The page of `Operations`, as it is sent: its frame and its looks. What moves in it is `PageScript.ts`. */

export const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Replicant</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script type="module" src="/page.js"></script>
</head>
<body>
<header>
<h1>Replicant</h1>
<p id="status" class="badge" role="status" data-status="unknown">no word yet</p>
</header>
<main id="streams"></main>
<footer><p>Read only. Also <a href="/readyz">/readyz</a> and <a href="/metrics">/metrics</a>.</p></footer>
<noscript><p>This page needs a script; /readyz and /metrics do not.</p></noscript>
</body>
</html>
`

/** Words say what colours say, too. */
export const css = `
:root {
  color-scheme: light dark;
  --ink: light-dark(#1b1f24, #e8eaed); --dim: light-dark(#57606a, #a0a8b1);
  --ground: light-dark(#f6f8fa, #14171a); --card: light-dark(#fff, #1e2226); --line: light-dark(#d0d7de, #3a4047);
  --ok: light-dark(#116329, #56d364); --degraded: light-dark(#7d4e00, #e3b341); --failing: light-dark(#a40e26, #ff7b72);
}
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: var(--ground); font: 16px/1.45 system-ui, sans-serif }
header, main, footer { max-width: 72rem; margin: auto; padding: .75rem 1rem }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center }
h1 { font-size: 1.25rem; margin: 0 } h2 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere } h3 { font-size: .95rem; margin: 1rem 0 .25rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin-bottom: 1rem }
section > header { padding: 0; justify-content: space-between }
.badge { margin: 0; padding: .1rem .6rem; border: 2px solid currentColor; border-radius: 1rem; font-weight: 600 }
[data-status=ok] { color: var(--ok) } [data-status=degraded] { color: var(--degraded) } [data-status=failing] { color: var(--failing) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem 1rem; margin: .75rem 0 }
dt { color: var(--dim); font-size: .85rem } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { color: var(--dim); font-size: .85rem }
svg { display: block; width: 100%; height: 4rem; border-bottom: 1px solid var(--line) }
polyline { fill: none; stroke: currentColor; stroke-width: 1.5; vector-effect: non-scaling-stroke }
progress { width: 100% } ul { margin: .25rem 0; padding-left: 1.2rem } li { overflow-wrap: anywhere } li p { margin: .1rem 0 }
pre { overflow: auto; white-space: pre-wrap; margin: .25rem 0; padding: .5rem; background: var(--ground) }
button { margin-top: .75rem; font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .8rem; min-height: 2.75rem }
a { color: inherit } :focus-visible { outline: 3px solid var(--degraded); outline-offset: 2px }
`
