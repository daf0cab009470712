/**
 * Bytes as a walsender sends them under pgoutput, protocol 1, text format: CopyData frames of XLogData, to measure
 * decoders with. Values vary from row to row as in a table somebody uses; the shapes are those of `workloads`.
 */

class Writer {
  private bytes = Buffer.alloc(1 << 24)
  private at = 0

  uint8(value: number): this {
    this.at = this.bytes.writeUInt8(value, this.at)
    return this
  }
  int16(value: number): this {
    this.at = this.bytes.writeInt16BE(value, this.at)
    return this
  }
  int32(value: number): this {
    this.at = this.bytes.writeInt32BE(value, this.at)
    return this
  }
  int64(value: bigint): this {
    this.at = this.bytes.writeBigInt64BE(value, this.at)
    return this
  }
  letter(letter: string): this {
    return this.uint8(letter.charCodeAt(0))
  }
  cstring(text: string): this {
    this.at += this.bytes.write(text, this.at)
    return this.uint8(0)
  }
  text(text: string): this {
    const length = Buffer.byteLength(text)
    this.letter("t").int32(length)
    this.at += this.bytes.write(text, this.at)
    return this
  }
  /** A CopyData frame of XLogData around what `payload` writes. */
  frame(lsn: bigint, payload: () => void): void {
    if (this.bytes.length - this.at < 1 << 16) {
      const grown = Buffer.alloc(this.bytes.length * 2)
      this.bytes.copy(grown)
      this.bytes = grown
    }
    this.letter("d")
    const length = this.at
    this.int32(0).letter("w").int64(lsn).int64(lsn).int64(836_000_000_000_000n)
    payload()
    this.bytes.writeInt32BE(this.at - length, length)
  }
  done(): Uint8Array {
    return this.bytes.subarray(0, this.at)
  }
}

type Cell = (row: number) => string | null

export interface Shape {
  readonly name: string
  readonly replicaIdentity: "d" | "f"
  readonly change: "insert" | "update"
  readonly columns: ReadonlyArray<readonly [name: string, typeOid: number, cell: Cell]>
  readonly rowsPerTransaction: number
  readonly rows: number
  /** Rows go to each of so many relations in turn; 1 unless told otherwise. */
  readonly relations?: number
  /** Each relation names its columns differently: they share types, and nothing else. */
  readonly hasOwnNames?: boolean
  /** How many rows go to one relation before the next has its turn; 1 unless told otherwise. */
  readonly rowsInTurn?: number
}

export interface Workload {
  readonly name: string
  readonly rows: number
  /** A transaction that describes every relation, and has no rows. */
  readonly relations: Uint8Array
  /** The rows, in transactions, describing nothing. */
  readonly bytes: Uint8Array
}

const two = (value: number): string => String(value).padStart(2, "0")
const timestamp: Cell = (row) =>
  `2026-07-${two(1 + (row % 28))} ${two(row % 24)}:${two(row % 60)}:${two((row * 7) % 60)}.${String(row % 1_000_000).padStart(6, "0")}+00`
const words = ["pending", "paid", "shipped", "returned", "café", "on hold"]

/** Six columns of everyday types. */
export const narrow: Shape["columns"] = [
  ["id", 20, (row) => String(1_000_000 + row)],
  ["account", 23, (row) => String((row * 7919) % 100_000)],
  ["amount", 1700, (row) => `${(row * 31) % 10_000}.${two(row % 100)}`],
  ["status", 25, (row) => words[row % 5 === 4 ? row % 6 : row % 4]!],
  ["is_open", 16, (row) => (row % 3 === 0 ? "t" : "f")],
  ["created_at", 1184, timestamp]
]

const wideGroup = (_: unknown, index: number): Shape["columns"] => [
  [`id_${index}`, 20, (row) => String(row * 13 + index)],
  [`count_${index}`, 23, (row) => (row % 10 === index % 10 ? null : String((row * 31 + index) % 5000))],
  [`ratio_${index}`, 701, (row) => String(((row * 17 + index) % 10_000) / 64)],
  [`name_${index}`, 25, (row) => `customer ${row % 1000} of region ${index}`],
  [`flag_${index}`, 16, (row) => ((row + index) % 2 === 0 ? "t" : "f")],
  [`at_${index}`, 1184, timestamp]
]

/** `count` columns, of six types in turn. */
export const wide = (count: number): Shape["columns"] =>
  Array.from({ length: Math.ceil(count / 6) }, wideGroup)
    .flat()
    .slice(0, count)

/** The shapes the peers are measured with. */
export const shapes: ReadonlyArray<Shape> = [
  {
    name: "narrow rows, 6 columns, 100 a transaction",
    replicaIdentity: "d",
    change: "insert",
    columns: narrow,
    rowsPerTransaction: 100,
    rows: 20_000
  },
  {
    name: "narrow rows, 6 columns, one-row transactions",
    replicaIdentity: "d",
    change: "insert",
    columns: narrow,
    rowsPerTransaction: 1,
    rows: 20_000
  },
  {
    name: "wide rows, 30 columns",
    replicaIdentity: "d",
    change: "insert",
    columns: wide(30),
    rowsPerTransaction: 100,
    rows: 5_000
  },
  {
    name: "updates under full replica identity, 6 columns",
    replicaIdentity: "f",
    change: "update",
    columns: narrow,
    rowsPerTransaction: 100,
    rows: 10_000
  }
]

const writeTuple = (writer: Writer, kind: string, columns: Shape["columns"], row: number): void => {
  writer.letter(kind).int16(columns.length)
  for (const [, , cell] of columns) {
    const text = cell(row)
    if (text === null) writer.letter("n")
    else writer.text(text)
  }
}

const firstOid = 16_400
const firstLsn = 0x1_0000_0000n
const committed = 836_000_000_000_000n

const writeBegin = (writer: Writer, lsn: bigint, commitLsn: bigint, xid: number): void =>
  writer.frame(lsn, () => writer.letter("B").int64(commitLsn).int64(committed).int32(xid))

const writeCommit = (writer: Writer, commitLsn: bigint, endLsn: bigint): void =>
  writer.frame(endLsn, () => writer.letter("C").uint8(0).int64(commitLsn).int64(endLsn).int64(committed))

const describe = ({ columns, hasOwnNames = false, relations = 1, replicaIdentity }: Shape): Uint8Array => {
  const writer = new Writer()
  const commitLsn = firstLsn - 96n
  writeBegin(writer, commitLsn, commitLsn, 699)
  for (let relation = 0; relation < relations; relation++) {
    writer.frame(0n, () => {
      writer
        .letter("R")
        .int32(firstOid + relation)
        .cstring("public")
        .cstring(`orders_${relation}`)
        .letter(replicaIdentity)
        .int16(columns.length)
      for (const [index, [name, typeOid]] of columns.entries()) {
        writer
          .uint8(replicaIdentity === "f" || index === 0 ? 1 : 0)
          .cstring(hasOwnNames ? `${name}_${relation}` : name)
          .int32(typeOid)
          .int32(-1)
      }
    })
  }
  writeCommit(writer, commitLsn, commitLsn + 48n)
  return writer.done()
}

/** The bytes of a shape. */
export const write = (shape: Shape): Workload => {
  const { change, columns, relations = 1, rows, rowsInTurn = 1, rowsPerTransaction } = shape
  const writer = new Writer()
  let lsn = firstLsn
  for (let row = 0; row < rows; ) {
    const commitLsn = lsn + 48n * BigInt(rowsPerTransaction)
    const endLsn = commitLsn + 48n
    writeBegin(writer, lsn, commitLsn, 700 + row)
    for (let ordinal = 0; ordinal < rowsPerTransaction && row < rows; ordinal++, row++) {
      const current = row
      writer.frame(lsn + BigInt(ordinal), () => {
        writer.letter(change === "insert" ? "I" : "U").int32(firstOid + (Math.floor(current / rowsInTurn) % relations))
        if (change === "update") writeTuple(writer, "O", columns, current)
        writeTuple(writer, "N", columns, change === "update" ? current + 1 : current)
      })
    }
    writeCommit(writer, commitLsn, endLsn)
    lsn = endLsn
  }
  return { name: shape.name, rows, relations: describe(shape), bytes: writer.done() }
}

/** Cut into reads as a socket gives them. */
export const readsOf = (bytes: Uint8Array, size = 65_536): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.subarray(index * size, (index + 1) * size))
