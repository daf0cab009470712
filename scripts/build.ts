/**
 * Compiles the packages into their `dist`: JavaScript, declarations and maps to the sources, which are shipped too.
 * Core comes first, without the types of Node.js, so that it cannot use what only Node.js has; the others are compiled
 * against core's declarations, not its sources.
 *
 *     node scripts/build.ts [core|node|nats|redis ...]
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { packages } from "./packages.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/**
 * Builds packages and what they need from nothing, so that a module that is gone leaves no file. True when it worked.
 */
export const build = (names: ReadonlyArray<string>): boolean => {
  for (const name of names) Fs.rmSync(Path.join(root, "packages", name, "dist"), { recursive: true, force: true })
  const projects = names.map((name) => Path.join(root, "packages", name, "tsconfig.build.json"))
  const tsc = Path.join(root, "node_modules/.bin/tsc")
  return spawnSync(tsc, ["-b", "--force", ...projects], { stdio: "inherit" }).status === 0
}

if (import.meta.main) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : packages
  if (build(names)) for (const name of names) console.log(`built packages/${name}/dist`)
  else process.exitCode = 1
}
