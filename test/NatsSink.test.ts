/** Changes of a real PostgreSQL in a real NATS, whoever is killed: each once and in order. */
import { assert, describe, it } from "@effect/vitest"
import { NatsSink } from "@replicant/nats"
import { NatsServer } from "@replicant/nats/testing"
import { Effect } from "effect"
import { makeCertificates } from "./support/Certificates.ts"
import { isInstalled } from "./support/SinkEngines.ts"
import { killSink } from "./support/SinkKills.ts"

describe("a sink in JetStream", () => {
  it.live.skipIf(!isInstalled("nats") && process.env.CI === undefined)(
    "speaks TLS to who it is told to trust, shows its own certificate, and says whom it does not trust",
    () =>
      Effect.gen(function* () {
        const { authority, client, otherAuthority, server } = yield* makeCertificates
        const config = `tls { cert_file: "${server.certFile}", key_file: "${server.keyFile}", ca_file: "${authority.certFile}", verify: true }`
        const { port } = yield* NatsServer.make({ config })
        const sink = (tls: NatsSink.Connection["tls"]) =>
          NatsSink.make({
            connection: { servers: `tls://localhost:${port}`, ...(tls === undefined ? {} : { tls }) },
            stream: "SHOP",
            mark: "shop.mark",
            createStream: { subjects: ["shop.>"] }
          })
        const own = { cert: client.cert, key: client.key }
        const writer = yield* sink({ ca: authority.cert, ...own }).open()
        yield* writer.append([{ id: "0000000000000100", op: "m", to: "shop.x", key: undefined, value: "{}" }])
        const stranger = yield* Effect.flip(sink({ ca: otherAuthority.cert, ...own }).open())
        assert.deepInclude(stranger, { _tag: "SinkRefused", reason: "Tls" })
        assert.include(stranger.remedy, "`ca`")
      })
  )

  for (const [name, what] of [
    ["nats", "nats-server"],
    ["nats-current", "a current nats-server"]
  ] as const) {
    const title = `holds each change once and in order, with its runner, ${what} and PostgreSQL killed`
    // The current one comes by Go: see .ci/run.
    const isNeeded = name === "nats" && process.env.CI !== undefined
    if (!isInstalled(name) && !isNeeded) it.skip(`${title} (no ${what} on this machine)`, () => undefined)
    else
      it.live(title, () =>
        Effect.gen(function* () {
          const outcome = yield* killSink(name, { runner: 3, engine: 3, postgres: 2 })
          assert.deepInclude(outcome, { stored: outcome.committed, lost: 0, twice: 0, outOfOrder: 0 })
          assert.isAbove(outcome.committed, 100)
        })
      )
  }
})
