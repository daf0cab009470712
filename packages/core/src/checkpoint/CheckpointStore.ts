/** The public module `CheckpointStore`: where a copy under way keeps how far it is, so that a later run can go on. */
export { type FileOptions, file } from "./CheckpointFiles.ts"
export { CheckpointError, CheckpointStore, memory } from "./CheckpointService.ts"
export { type SqlOptions, sql } from "./CheckpointTable.ts"
