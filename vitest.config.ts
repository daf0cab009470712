import { tmpdir } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { latest, type PostgresVersion, projectName, versions } from "./test/support/PostgresVersion.ts"
import { roomInMemory } from "./test/support/roomInMemory.ts"
import { Summary } from "./test/support/Summary.ts"

/** What these prove does not depend on the version of the server; of single tests the option `once` says so. */
const onceOnly = [
  "test/Examples.test.ts",
  "test/PgServer.test.ts",
  "test/Proxy.test.ts",
  "test/FaultProxyExample.test.ts",
  "test/Broadcast.test.ts",
  "test/DeadLetters.test.ts",
  "test/Once.test.ts",
  "test/NatsSink.test.ts",
  "test/RedisSink.test.ts",
  "test/ReadYourWrites.test.ts"
]

/** These need no server either: they are about this checkout. */
const ofCheckout = ["test/architecture.test.ts", "test/mutants/*.test.ts"]

const faults = (...names: ReadonlyArray<string>) => names.map((name) => `test/faults/${name}.test.ts`)

/**
 * `npm test` proves what versions differ in on each of them, conformance above all; what takes long, and what no version
 * has been seen to change, on the newest alone; and the whole of it, from command to database, on the oldest and the
 * newest. `npm run server:all` runs everything on all.
 */
const onNewest = [
  "test/DeadLettersCli.test.ts",
  "test/DoctorCli.test.ts",
  "test/DoctorRights.test.ts",
  "test/Operations.test.ts",
  "test/OperationsPage.test.ts",
  "test/Prometheus.test.ts",
  ...faults(
    "BlackHoles",
    "Bytes",
    "Clock",
    "Connect",
    "Handlers",
    "HostileNames",
    "Leaks",
    "Lease",
    "Network",
    "Process",
    "Secrets*",
    "Security"
  )
]
const atTheEnds = [
  "test/Cli*.test.ts",
  "test/Observation.test.ts",
  "test/Codegen.test.ts",
  "test/Copy*.test.ts",
  "test/DoctorCopy.test.ts",
  "test/DoctorServer.test.ts",
  "test/DoctorStandby.test.ts",
  "test/JoiningTables.test.ts",
  "test/Replay.test.ts",
  "test/SnapshotControl.test.ts",
  "test/SnapshotResume.test.ts",
  ...faults("Checkpoints", "Copy", "Data", "NetworkCuts", "Server", "SlotCreation", "Snapshot*", "Standby")
]

/** Programs that tests start by the dozen are compiled once. */
const compileCache = fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url))

const excluded = (version: PostgresVersion): ReadonlyArray<string> => {
  if (version === latest) return []
  if (process.env.REPLICANT_TEST === "everything") return onceOnly
  return [...onceOnly, ...onNewest, ...(version === versions[0] ? [] : atTheEnds)]
}

// For workers as for what starts the servers that they share: both take it from here.
process.env.TMPDIR ??= roomInMemory() ?? tmpdir()

/**
 * `unit` needs nothing but this checkout; `server-14` to `server-18` run the same files, each on PostgreSQL of that
 * version. The `Summary` reporter ends the run with `N passed, N failed, N skipped` on a line of its own.
 */
export default defineConfig({
  test: {
    teardownTimeout: 30_000,
    reporters: ["default", new Summary()],
    projects: [
      {
        test: {
          name: "unit",
          include: ["packages/*/test/**/*.test.ts", ...ofCheckout],
          // A limit is there to end what hangs: it tells nothing of how fast a machine is. No test is tried twice.
          testTimeout: 120_000,
          hookTimeout: 120_000,
          // Files leave nothing behind that another could see; to load all that they test again for each is half the time.
          isolate: false,
          // First, by themselves.
          sequence: { groupOrder: 0 }
        }
      },
      ...versions.map((version) => ({
        test: {
          name: projectName(version),
          include: ["test/**/*.test.ts"],
          exclude: [...ofCheckout, ...excluded(version)],
          env: { REPLICANT_TEST_PROJECT: projectName(version), NODE_COMPILE_CACHE: compileCache },
          globalSetup: ["./test/support/globalSetup.ts"],
          // A file may hold tests for other versions only.
          passWithNoTests: true,
          testTimeout: 240_000,
          hookTimeout: 240_000,
          maxWorkers: 3,
          sequence: { groupOrder: 1 }
        }
      }))
    ]
  }
})
