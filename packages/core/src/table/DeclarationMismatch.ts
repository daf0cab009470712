/**
 * What is wrong between declared tables and the publications they are to come through: found by asking the catalog, before
 * a stream runs. What a stream itself meets is in `TableError.ts`.
 */
import * as Schema from "effect/Schema"

/**
 * One thing that is not as declared.
 *
 * | `problem` | `names` | |
 * |---|---|---|
 * | `tableMissing` | | the database has no such table |
 * | `notPublishable` | | a view, a foreign table, a table that is unlogged or temporary |
 * | `notPublished` | | no publication of those named has the table |
 * | `sentAsPartitions` | | changes come under the names of its partitions |
 * | `sentAsRoot` | the table they come under | it is a partition, and its changes come under its root's name |
 * | `columnMissing` | columns | the table does not have them |
 * | `columnNotPublished` | columns | a column list leaves them out, or they are generated |
 * | `columnListsDiffer` | publications | the walsender fails on a table of which they publish different columns |
 * | `typeMismatch` | the column | its values are of a kind that the Schema does not take |
 * | `keyNotInIdentity` | columns | they are declared as key, and old rows do not have them |
 * | `operationNotPublished` | operations | |
 * | `noReplicaIdentity` | partitions | the source refuses every UPDATE and DELETE |
 * | `identityNotPublished` | columns | the source refuses UPDATE and DELETE: a column list lacks part of the identity |
 * | `filterNotInIdentity` | columns | the source refuses UPDATE and DELETE: a row filter reads them |
 */
export const DeclarationProblem = Schema.Struct({
  problem: Schema.Literals([
    "tableMissing",
    "notPublishable",
    "notPublished",
    "sentAsPartitions",
    "sentAsRoot",
    "columnMissing",
    "columnNotPublished",
    "columnListsDiffer",
    "typeMismatch",
    "keyNotInIdentity",
    "operationNotPublished",
    "noReplicaIdentity",
    "identityNotPublished",
    "filterNotInIdentity"
  ]),
  /** Absent where it is the publication as a whole. */
  table: Schema.optional(Schema.Struct({ schema: Schema.String, name: Schema.String })),
  /** Columns, operations, partitions or publications: see the table above. */
  names: Schema.Array(Schema.String),
  /** What is wrong, in words. */
  detail: Schema.String,
  /** The statement or declaration that mends it. */
  remedy: Schema.String
})
/** One thing that does not fit, and what mends it. */
export type DeclarationProblem = typeof DeclarationProblem.Type

/** Everything that keeps the declared tables from coming through these publications, each with its cure. */
export class DeclarationMismatch extends Schema.TaggedError<DeclarationMismatch>("@replicant/core/DeclarationMismatch")(
  "DeclarationMismatch",
  {
    publications: Schema.NonEmptyArray(Schema.String),
    problems: Schema.NonEmptyArray(DeclarationProblem)
  }
) {
  /** The cures, a line each. */
  get remedy(): string {
    return Array.from(new Set(this.problems.map((problem) => problem.remedy))).join("\n")
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const names = this.publications.map((name) => `"${name.replaceAll('"', '""')}"`).join(", ")
    const lines = this.problems.map((problem) => `\n- ${problem.detail}`).join("")
    return `publication ${names} and the declared tables do not fit:${lines}`
  }
}
