/**
 * Fills a search index from nothing, and keeps it so: the articles that are there, then what changes, with no gap between.
 * `node examples/search-index.ts` fills and follows; `node examples/search-index.ts find tea` asks the index.
 *
 * The engine stands for a real one, with a bulk request that is durable once it is answered. Nothing is acknowledged
 * before, so a crash costs a repetition; and since every operation names its document, a repetition changes nothing.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { CheckpointStore, Handler, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Console, Effect, FileSystem, Layer, Option, Schema } from "effect"

const Article = Schema.Struct({ id: Schema.Number, title: Schema.String, body: Schema.String })
const Articles = Table.make("public.articles", Article, { key: ["id"] })

/** What a bulk request is made of. `Patch` keeps what it does not name; `Move` does, too, under another id. */
const Part = Schema.Struct({
  id: Schema.optionalKey(Schema.Number),
  title: Schema.optionalKey(Schema.String),
  body: Schema.optionalKey(Schema.String)
})
const Operation = Schema.Union([
  Schema.TaggedStruct("Clear", {}),
  Schema.TaggedStruct("Put", { id: Schema.String, row: Article }),
  Schema.TaggedStruct("Patch", { id: Schema.String, row: Part }),
  Schema.TaggedStruct("Move", { id: Schema.String, from: Schema.Struct({ id: Schema.String }), row: Part }),
  Schema.TaggedStruct("Remove", { id: Schema.String })
])
type Operation = typeof Operation.Type

/** An index in memory, and a journal of its requests from which it is there again after a restart. */
const openEngine = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const documents = new Map<string, typeof Article.Type>()
  const places = new Map<string, Set<string>>()

  const wordsOf = ({ body, title }: typeof Article.Type) => new Set(`${title} ${body}`.toLowerCase().match(/\p{L}+/gu))
  const remove = (id: string) => {
    const document = documents.get(id)
    if (document !== undefined) for (const word of wordsOf(document)) places.get(word)?.delete(id)
    documents.delete(id)
  }
  const put = (id: string, document: typeof Article.Type) => {
    remove(id)
    documents.set(id, document)
    for (const word of wordsOf(document)) places.set(word, (places.get(word) ?? new Set()).add(id))
  }
  const apply = (operation: Operation) => {
    switch (operation._tag) {
      case "Clear":
        documents.clear()
        return places.clear()
      case "Put":
        return put(operation.id, operation.row)
      case "Remove":
        return remove(operation.id)
      default: {
        const { id, row } = operation
        const from = operation._tag === "Move" ? operation.from.id : id
        // Moved already, where this request comes again.
        const known = documents.get(id) ?? documents.get(from)
        if (from !== id) remove(from)
        if (known !== undefined) put(id, { ...known, ...row })
      }
    }
  }

  const Request = Schema.fromJsonString(Schema.Array(Operation))
  const journal = (yield* fs.exists(path)) ? yield* fs.readFileString(path) : ""
  // Half a line is a request that was never answered.
  for (const line of journal.split("\n")) {
    Option.map(Schema.decodeUnknownOption(Request)(line), (operations) => operations.forEach(apply))
  }
  const file = yield* fs.open(path, { flag: "a" })
  const encode = Schema.encodeEffect(Request)
  return {
    /** All of them, in order, and durable when this has ended. */
    bulk: Effect.fnUntraced(function* (operations: ReadonlyArray<Operation>) {
      yield* file.writeAll(new TextEncoder().encode(`\n${yield* encode(operations)}\n`))
      yield* file.sync
      operations.forEach(apply)
    }),
    find: (word: string) => [...(places.get(word.toLowerCase()) ?? [])].map((id) => documents.get(id)!)
  }
})

const follow = Effect.gen(function* () {
  const engine = yield* openEngine(yield* Config.String("INDEX_FILE"))
  return yield* withLogicalStream(
    {
      slot: "search_index",
      plugin: Pgoutput.make({ publications: ["articles"] }),
      snapshot: "initial",
      copy: { piecePages: 64 }
    },
    Table.handler([Articles], Handler.durable(Table.applyTo(Articles, engine.bulk)))
  )
})

/** Half a copy is not lost: how far it is stands in a file, as soon as its articles are in the index. */
const checkpoints = Layer.unwrap(
  Effect.map(Config.String("CHECKPOINTS"), (directory) => CheckpointStore.file({ directory }))
)

const program = follow.pipe(Effect.scoped, Effect.provide([checkpoints, PgWalSender.layerConfig]))

const find = Effect.fnUntraced(function* (word: string) {
  const engine = yield* openEngine(yield* Config.String("INDEX_FILE"))
  yield* Effect.forEach(engine.find(word), (document) => Console.log(JSON.stringify(document)))
}, Effect.scoped)

const [, , command, word = ""] = process.argv
const main = command === "find" ? find(word) : program
Effect.asVoid(main).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
