/**
 * Which modules are mutated, and which tests are to notice: those that are beside the module, and those named here. No more
 * than it takes, since each is run for each mutant that it reaches.
 */

/** A module that decides about a position, by its path. */
export interface Mutated {
  readonly file: string
  /** Paths of the tests. */
  readonly tests: ReadonlyArray<string>
}

const inPackage =
  (name: string) =>
  (module: string, ...more: ReadonlyArray<string>): Mutated => ({
    file: `packages/${name}/src/${module}.ts`,
    tests: (more.length === 0 ? [module] : more).map((test) => `packages/${name}/test/${test}.test.ts`)
  })

const core = inPackage("core")
const node = inPackage("node")

/** All of them. Tests are those of the module's own name, unless others are named. */
export const plan: ReadonlyArray<Mutated> = [
  core("replication/WalProgress"),
  core("replication/KeepAlive", "replication/KeepAlive", "replication/KeepAliveHandler"),
  core("replication/CopyData"),
  core("replication/ReadsAhead"),
  core("pgoutput/StreamedTransaction", "pgoutput/StreamedTransaction", "pgoutput/StreamingDecoder"),
  core("copying/ResumePlan"),
  core("copying/SeamFilter"),
  core("copying/CopyRecord"),
  core("replication/GatheredTransactions"),
  core("replication/Stall"),
  core("replication/WalSenderStanding"),
  core("copying/CoveredTables"),
  core("copying/SeamHistory"),
  node("copy/CopySlot"),
  core("snapshot/TransactionSnapshot"),
  core("replication/Reconnect"),
  core("copying/CopyCheckpoint"),
  node("copy/CopyPosition"),
  core("pgoutput/StreamingDecoder")
]
