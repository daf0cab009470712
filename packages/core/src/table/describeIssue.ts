/**
 * What a Schema expected, and where, told from the Schema alone. An issue may carry the value in many ways: a filter's own
 * text, a message made while decoding, keys of a record. None of them is read here.
 */
import * as SchemaIssue from "effect/SchemaIssue"

/** Where a row does not fit, and what would. */
export interface Misplacement {
  /** From the row inwards. Keys that no Schema declares are data, and stand as `*`. */
  readonly path: ReadonlyArray<string | number>
  readonly expected: string
}

type Ast = SchemaIssue.InvalidType["ast"]

/** A fresh issue holds no input; what is printed of it is the Schema's identifier or shape. */
const expectedOf = (ast: Ast): string =>
  SchemaIssue.defaultLeafHook(new SchemaIssue.InvalidType(ast)).replace(/^Expected /, "")

const segment = (key: PropertyKey, within: Ast | undefined): string | number => {
  if (typeof key === "number") return key
  const isDeclared = within?._tag === "Objects" && within.propertySignatures.some((property) => property.name === key)
  return isDeclared && typeof key === "string" ? key : "*"
}

/** The first thing that does not fit; `within` is the Schema of what holds it. */
export const describeIssue = (
  issue: SchemaIssue.Issue,
  path: ReadonlyArray<string | number> = [],
  within?: Ast | undefined,
  outer?: string | undefined
): Misplacement => {
  const misplaced = (expected: string): Misplacement => ({
    path,
    expected: outer ?? expected
  })
  switch (issue._tag) {
    case "Pointer":
      return describeIssue(issue.issue, [...path, ...issue.path.map((key) => segment(key, within))], within, outer)
    case "Composite":
      return describeIssue(issue.issues[0], path, issue.ast, outer)
    case "Encoding": {
      // What was refused on the way from text to value is told as the value that was wanted.
      const isLeaf = issue.issue._tag === "InvalidValue" || issue.issue._tag === "Forbidden"
      return describeIssue(issue.issue, path, issue.ast, outer ?? (isLeaf ? expectedOf(issue.ast) : undefined))
    }
    case "Filter": {
      const { expected } = issue.filter.annotations ?? {}
      const check = typeof expected === "string" ? expected : "a value that passes the Schema's checks"
      return describeIssue(issue.issue, path, within, outer ?? check)
    }
    case "AnyOf":
    case "OneOf":
    case "InvalidType":
      return misplaced(expectedOf(issue.ast))
    case "MissingKey":
      return misplaced("a value")
    case "UnexpectedKey":
      return misplaced("no such key")
    default:
      return misplaced("a value that decodes")
  }
}
