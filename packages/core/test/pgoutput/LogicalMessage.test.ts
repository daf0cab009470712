import { assert, describe, it } from "@effect/vitest"
import * as LogicalMessage from "../../src/pgoutput/LogicalMessage.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { decodeErrorOf, message, relation } from "../support/PgoutputBytes.ts"

/** Past the byte that tells the kind. */
const body = (bytes: Uint8Array) => ByteReader.over(bytes.subarray(1))
const problem = (decode: (reader: ByteReader) => unknown, bytes: Uint8Array) =>
  decodeErrorOf(() => decode(body(bytes))).problem

describe("logical replication messages", () => {
  it("take OIDs and transaction ids for unsigned", () => {
    assert.strictEqual(LogicalMessage.decodeBegin(body(message("B", [8, 1], [8, 2], [4, 0xffff_ffff]))).xid, 4294967295)
    assert.strictEqual(LogicalMessage.decodeType(body(message("Y", [4, 0xffff_fffe], "\0", "x\0"))).oid, 4294967294)
    assert.strictEqual(LogicalMessage.decodeRelation(body(relation(0x8000_0000, []))).oid, 2147483648)
  })

  it("take LSNs for unsigned, up to the last", () => {
    const { commitLsn, endLsn } = LogicalMessage.decodeCommit(body(message("C", [1, 0], [8, -2n], [8, -1n], [8, 0])))
    assert.strictEqual(commitLsn, 0xffff_ffff_ffff_fffen)
    assert.strictEqual(endLsn, 0xffff_ffff_ffff_ffffn)
  })

  it("name pg_catalog where a relation's schema is empty", () => {
    const bytes = message("R", [4, 1], "\0", "t\0", "d", [2, 0])
    assert.deepStrictEqual(LogicalMessage.decodeRelation(body(bytes)), {
      oid: 1,
      schema: "pg_catalog",
      name: "t",
      replicaIdentity: "default",
      columns: []
    })
  })

  it("refuse a relation with two columns of one name, without which a row would lose one", () => {
    const columns = [
      { name: "a", typeOid: 25 },
      { name: "a", typeOid: 23 }
    ]
    assert.strictEqual(
      problem(LogicalMessage.decodeRelation, relation(1, columns)),
      "a relation with two columns of one name"
    )
  })

  it("refuse flags, options and identities nobody has given a meaning", () => {
    const columnFlags = message("R", [4, 1], "s\0", "t\0", "d", [2, 1], [1, 2], "a\0", [4, 25], [4, -1])
    assert.include(problem(LogicalMessage.decodeRelation, columnFlags), "a column with flags 0x2")
    assert.include(problem(LogicalMessage.decodeRelation, relation(1, [], "t", "x")), "replica identity 0x78")
    assert.include(problem(LogicalMessage.decodeCommit, message("C", [1, 1], [8, 1], [8, 2], [8, 0])), "flags 0x1")
    assert.include(problem(LogicalMessage.decodeMessage, message("M", [1, 2], [8, 1], "\0", [4, 0])), "flags 0x2")
    assert.include(problem(LogicalMessage.decodeTruncate, message("T", [4, 0], [1, 4])), "options 0x4")
  })

  it("allocate nothing for a count or length that the message does not hold", () => {
    assert.include(
      problem(LogicalMessage.decodeTruncate, message("T", [4, 0x7fff_ffff], [1, 0], [4, 1])),
      "2147483647 relations"
    )
    assert.include(
      problem(LogicalMessage.decodeMessage, message("M", [1, 0], [8, 1], "\0", [4, 0x7fff_ffff])),
      "bytes wanted"
    )
    assert.include(problem(LogicalMessage.decodeMessage, message("M", [1, 0], [8, 1], "\0", [4, -1])), "bytes wanted")
    assert.include(
      problem(LogicalMessage.decodeRelation, message("R", [4, 1], "s\0", "t\0", "d", [2, -1])),
      "bytes wanted"
    )
  })
})
