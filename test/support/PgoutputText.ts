/**
 * A walsender's own words: pgoutput messages of protocol version 1, and the abort that PostgreSQL 18 sends in every version,
 * printed in the notation of the conformance tests.
 *
 * It shares no code with the library and knows no value's type, so that what a server said can be told from what
 * Replicant made of it: that a relation was sent twice, that a value was sent as unchanged. Not a decoder for anything
 * else: it trusts its bytes.
 */

/** Names and values as a transcript shows them: plain where they are plain, else as JSON, long ones by their length. */
export const printText = (text: string): string => {
  if (text.length > 60) {
    const first = [...text][0]!
    return first.repeat(text.length / first.length) === text ? `${first}*${text.length}` : `…*${text.length}`
  }
  return /^[^\s"{}()[\],~=*]+$/.test(text) && text !== "null" ? text : JSON.stringify(text)
}

export const printName = (schema: string, name: string): string =>
  schema === "public" ? printText(name) : `${printText(schema)}.${printText(name)}`

/** The bytes of a logical message: text where they are printable text, hex where not. */
export const printContent = (content: Uint8Array): string => {
  const text = Buffer.from(content).toString("utf8")
  return Buffer.from(text).equals(content) && !/\p{Cc}/u.test(text)
    ? printText(text)
    : `\\x${Buffer.from(content).toString("hex")}`
}

export const printRelation = (
  name: string,
  replicaIdentity: string,
  columns: ReadonlyArray<{ readonly name: string; readonly isKey: boolean }>
): string =>
  `R ${name}(${columns.map((column) => `${printText(column.name)}${column.isKey ? "*" : ""}`).join(",")}) ri=${replicaIdentity}`

export const printTruncate = (
  names: ReadonlyArray<string>,
  { cascade, restartIdentity }: { readonly cascade: boolean; readonly restartIdentity: boolean }
): string => `T[${names.join(",")}]${cascade ? " cascade" : ""}${restartIdentity ? " restart" : ""}`

interface Described {
  readonly name: string
  readonly columns: ReadonlyArray<{ readonly name: string; readonly isKey: boolean }>
}

/** Prints the messages of one decoding session, in order: it remembers the relations. */
export class PgoutputPrinter {
  private readonly relations = new Map<number, Described>()
  private bytes: Buffer = Buffer.alloc(0)
  private at = 0

  print(message: Uint8Array): string {
    this.bytes = Buffer.from(message)
    this.at = 1
    const tag = String.fromCharCode(message[0]!)
    switch (tag) {
      case "B":
      case "C":
        return tag
      case "R":
        return this.printRelation()
      case "Y":
        this.at += 4
        return `Y ${printName(this.text(), this.text())}`
      case "I": {
        const relation = this.relation()
        return `I ${relation.name}${this.tuple(relation).text}`
      }
      case "U": {
        const relation = this.relation()
        const first = this.tuple(relation)
        const rest = first.kind === "N" ? first : this.tuple(relation)
        const old = first === rest ? "" : `${first.kind}${first.text} `
        return `U ${relation.name} ${old}N${rest.text}`
      }
      case "D": {
        const relation = this.relation()
        const old = this.tuple(relation)
        return `D ${relation.name} ${old.kind}${old.text}`
      }
      case "T": {
        const count = this.int32()
        const flags = this.uint8()
        const names = Array.from({ length: count }, () => this.relation().name)
        return printTruncate(names, { cascade: (flags & 1) !== 0, restartIdentity: (flags & 2) !== 0 })
      }
      case "M": {
        const flags = this.uint8()
        this.at += 8
        const prefix = this.text()
        const length = this.int32()
        return `M ${flags === 1 ? "tx" : "-"} ${printText(prefix)} ${printContent(this.take(length))}`
      }
      case "O":
        this.at += 8
        return `O ${printText(this.text())}`
      case "A": {
        const [xid, subxid] = [this.int32(), this.int32()]
        return `A ${xid === subxid ? "transaction" : "subtransaction"}${this.at < this.bytes.length ? ", with its place" : ""}`
      }
      default:
        return `? ${this.bytes.toString("hex")}`
    }
  }

  private printRelation(): string {
    const oid = this.int32()
    const name = printName(this.text(), this.text())
    const replicaIdentity = String.fromCharCode(this.uint8())
    const count = this.int16()
    const columns = Array.from({ length: count }, () => {
      const isKey = this.uint8() === 1
      const column = { name: this.text(), isKey }
      this.at += 8
      return column
    })
    this.relations.set(oid, { name, columns })
    return printRelation(name, replicaIdentity, columns)
  }

  private relation(): Described {
    const oid = this.int32()
    return this.relations.get(oid) ?? { name: `?${oid}`, columns: [] }
  }

  /** `K`, `O` or `N`, and the columns: of a key tuple only those of the key, of an unchanged column its name alone. */
  private tuple({ columns }: Described): { readonly kind: string; readonly text: string } {
    const kind = String.fromCharCode(this.uint8())
    const count = this.int16()
    const printed: Array<string> = []
    for (let index = 0; index < count; index++) {
      const { isKey, name } = columns[index] ?? { name: `?${index}`, isKey: true }
      const value = this.value(printText(name))
      if (kind !== "K" || isKey) printed.push(value)
    }
    return { kind, text: `{${printed.join(",")}}` }
  }

  private value(name: string): string {
    const kind = String.fromCharCode(this.uint8())
    if (kind === "n") return `${name}=null`
    if (kind === "u") return `~${name}`
    const value = this.take(this.int32())
    return `${name}=${kind === "t" ? printText(value.toString("utf8")) : printContent(value)}`
  }

  private take(length: number): Buffer {
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  private uint8(): number {
    return this.take(1).readUInt8()
  }

  private int16(): number {
    return this.take(2).readInt16BE()
  }

  private int32(): number {
    return this.take(4).readInt32BE()
  }

  private text(): string {
    const text = this.bytes.toString("utf8", this.at, this.bytes.indexOf(0, this.at))
    this.at = this.bytes.indexOf(0, this.at) + 1
    return text
  }
}
