/**
 * A page that shows a table as it is, whoever writes to it: a change makes the page's query ask again, and what it finds goes to every
 * browser that looks. `node examples/live-page.ts`, with DATABASE_URL and PORT.
 *
 * The slot is temporary: it costs no disk while nobody looks after it, and the queries ask again with each new connection.
 */
import { createServer } from "node:http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, Layer, Schema, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"

const Ticket = Schema.Struct({ id: Schema.Number, title: Schema.String, status: Schema.String })
const Tickets = Table.make("public.tickets", Ticket, { key: ["id"] })

const openTickets = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`SELECT id, title, status FROM tickets WHERE status <> 'done' ORDER BY id DESC LIMIT 50`
)

const encode = new TextEncoder()

/** An event for whoever looks, as often as the answer may be another. */
const events = openTickets.pipe(
  Reactivity.stream([Tickets.name]),
  Stream.map((rows) => encode.encode(`data: ${JSON.stringify(rows)}\n\n`))
)

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>Tickets</title>
<style>body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; color-scheme: light dark }</style>
<h1>Open tickets</h1>
<ul id="tickets"></ul>
<script>
  new EventSource("/events").onmessage = ({ data }) => {
    const items = JSON.parse(data).map(({ id, title, status }) => {
      const item = document.createElement("li")
      item.textContent = "#" + id + " " + title + " (" + status + ")"
      return item
    })
    document.querySelector("#tickets").replaceChildren(...items)
  }
</script>
</html>`

const Routes = Layer.mergeAll(
  HttpRouter.add("GET", "/", HttpServerResponse.html(page)),
  Layer.unwrap(
    Effect.map(Effect.context<SqlClient.SqlClient | Reactivity.Reactivity>(), (context) =>
      HttpRouter.add(
        "GET",
        "/events",
        HttpServerResponse.stream(Stream.provideContext(events, context), { contentType: "text/event-stream" })
      )
    )
  )
)

const Server = Layer.unwrap(
  Effect.map(Config.Number("PORT"), (port) => NodeHttpServer.layer(createServer, { host: "127.0.0.1", port }))
)

const follow = withLogicalStream(
  {
    slot: "live_page",
    plugin: Pgoutput.make({ publications: ["tickets"] }),
    createSlot: "temporary",
    slotPolicy: { missing: "recreate" }
  },
  Table.invalidates([Tickets])
)

// A page that is not told of changes any more is no page: both end together.
const program = Effect.raceFirst(Layer.launch(HttpRouter.serve(Routes).pipe(Layer.provide(Server))), follow)

const services = Layer.mergeAll(
  PgWalSender.layerConfig,
  Layer.provideMerge(PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") }), Reactivity.layer)
)

program.pipe(Effect.provide(services), NodeRuntime.runMain)
