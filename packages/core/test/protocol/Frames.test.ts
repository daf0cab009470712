import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import { defaultMaxFrameLength, encodeFrame, Frames } from "../../src/protocol/Frames.ts"
import { DecodeError } from "../../src/ReplicationError.ts"

interface Frame {
  readonly tag: number
  readonly payload: ReadonlyArray<number>
}

const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Every frame that a push makes whole. */
const drain = (frames: Frames): Array<Frame> => {
  const found: Array<Frame> = []
  while (frames.next()) {
    found.push({ tag: frames.tag, payload: Array.from(frames.bytes.subarray(frames.start, frames.end)) })
  }
  return found
}

/** The frames of a stream that arrives cut at these positions. */
const feed = (stream: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<Frame> => {
  const frames = new Frames()
  const edges = [0, ...cuts.toSorted((a, b) => a - b), stream.length]
  const found = edges.slice(1).flatMap((edge, index) => {
    // A copy, wiped afterwards: what a frame still needs of a read, it must have taken with it.
    const read = stream.slice(edges[index], edge)
    frames.push(read)
    const whole = drain(frames)
    read.fill(0xee)
    return whole
  })
  assert.strictEqual(frames.pending, 0)
  return found
}

const messages: ReadonlyArray<Frame> = [
  { tag: 0x57, payload: [0, 0, 0] },
  { tag: 0x64, payload: [1, 2, 3, 4, 5, 6, 7] },
  { tag: 0x63, payload: [] },
  { tag: 0x64, payload: Array.from({ length: 40 }, (_, index) => index) },
  { tag: 0x5a, payload: [0x49] }
]
const encode = (all: ReadonlyArray<Frame>): Uint8Array =>
  concat(all.map(({ payload, tag }) => encodeFrame(tag, Uint8Array.from(payload))))
const stream = encode(messages)

const header = (tag: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(5)
  bytes[0] = tag
  new DataView(bytes.buffer).setInt32(1, length)
  return bytes
}

const problemOf = (run: () => unknown): DecodeError => {
  try {
    run()
  } catch (error) {
    assert.instanceOf(error, DecodeError)
    return error
  }
  return assert.fail("expected a DecodeError")
}

/** Runs, and counts the bytes that went through any typed array's `set`. */
const countingCopies = <A>(run: () => A): { readonly copied: number; readonly result: A } => {
  const prototype: Uint8Array = Object.getPrototypeOf(Uint8Array.prototype)
  const { set } = prototype
  let copied = 0
  prototype.set = function (this: Uint8Array, source: ArrayLike<number>, offset?: number) {
    copied += source.length
    set.call(this, source, offset)
  }
  try {
    const result = run()
    return { copied, result }
  } finally {
    prototype.set = set
  }
}

describe("Frames", () => {
  it("steps through the whole frames of a read", () => {
    assert.deepStrictEqual(feed(stream, []), messages)
  })

  it("finds the same frames wherever one read ends and the next begins", () => {
    for (let first = 0; first <= stream.length; first++) {
      assert.deepStrictEqual(feed(stream, [first]), messages)
      for (let second = first; second <= stream.length; second++) {
        assert.deepStrictEqual(feed(stream, [first, second]), messages)
      }
    }
  })

  it("finds the same frames byte by byte", () => {
    assert.deepStrictEqual(feed(stream, Array.from(stream.keys())), messages)
  })

  const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
  const frame = Arbitrary.all({
    tag: Arbitrary.schema(byte),
    payload: Arbitrary.array(Arbitrary.schema(byte), { maxLength: 300 })
  })
  const fractions = Schema.Array(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })))
  it.prop(
    "finds the same frames of any stream under any cuts",
    { all: Arbitrary.array(frame, { maxLength: 12 }), fractions },
    ({ all, fractions }) => {
      const bytes = encode(all)
      const cuts = fractions.map((fraction) => Math.floor(fraction * bytes.length))
      assert.deepStrictEqual(feed(bytes, cuts), all)
    },
    { arbitrary: { runs: 500 } }
  )

  it("lends whole frames of a read without copying them", () => {
    const frames = new Frames()
    frames.push(stream)
    while (frames.next()) assert.strictEqual(frames.bytes, stream)
  })

  it("keeps a completed frame readable until the next step, whatever the read holds behind it", () => {
    const frames = new Frames()
    frames.push(stream.subarray(0, 12))
    drain(frames)
    frames.push(stream.subarray(12))
    assert.isTrue(frames.next())
    assert.deepStrictEqual(Array.from(frames.bytes.subarray(frames.start, frames.end)), messages[1]!.payload)
    assert.isTrue(frames.next())
    assert.strictEqual(frames.tag, messages[2]!.tag)
  })

  it("keeps no more of a cut frame than the frame, also when its length is cut", () => {
    for (let cut = 1; cut < stream.length; cut++) {
      const frames = new Frames()
      frames.push(stream.subarray(0, cut))
      drain(frames)
      frames.push(stream.subarray(cut))
      frames.next()
      assert.isAtMost(frames.bytes.buffer.byteLength, stream.length)
    }
  })

  it("tells how much of a frame has come", () => {
    const frames = new Frames()
    frames.push(stream.subarray(0, 8))
    drain(frames)
    assert.strictEqual(frames.pending, 0)
    for (const [index, byte] of stream.subarray(8, 19).entries()) {
      frames.push(Uint8Array.of(byte))
      assert.isFalse(frames.next())
      assert.strictEqual(frames.pending, index + 1)
    }
    frames.push(new Uint8Array(0))
    assert.isFalse(frames.next())
    assert.strictEqual(frames.pending, 11)
    frames.push(stream.subarray(19, 20))
    assert.deepStrictEqual(drain(frames), [messages[1]])
    assert.strictEqual(frames.pending, 0)
  })

  describe.each([-1, 0, 1, 3, -(2 ** 31), defaultMaxFrameLength + 1, 2 ** 31 - 1])("a frame of length %d", (length) => {
    it("fails as soon as its length is known", () => {
      const bytes = concat([encodeFrame(0x5a, Uint8Array.of(0x49)), header(0x64, length)])
      for (let cut = 0; cut < bytes.length; cut++) {
        const frames = new Frames()
        frames.push(bytes.subarray(0, cut))
        drain(frames)
        frames.push(bytes.subarray(cut))
        assert.include(problemOf(() => drain(frames)).problem, "0x64")
      }
    })
  })

  it("takes the longest message that PostgreSQL can build, and waits for it", () => {
    const frames = new Frames()
    frames.push(header(0x64, defaultMaxFrameLength))
    assert.isFalse(frames.next())
    assert.strictEqual(frames.pending, 5)
  })

  it("holds to a smaller limit where one is set", () => {
    const frames = new Frames(10)
    frames.push(encodeFrame(0x64, new Uint8Array(6)))
    assert.isTrue(frames.next())
    frames.push(encodeFrame(0x64, new Uint8Array(7)))
    problemOf(() => frames.next())
  })

  it("never copies twice a frame of a few reads, such as a row of 100 kB", () => {
    const frame = encodeFrame(0x64, new Uint8Array(100_000))
    const frames = new Frames()
    const { copied } = countingCopies(() => {
      for (let at = 0; at < frame.length; at += 65_536) {
        frames.push(frame.subarray(at, at + 65_536))
        frames.next()
      }
    })
    assert.strictEqual(frames.end - frames.start, 100_000)
    assert.strictEqual(copied, frame.length)
  })

  it("reserves no memory for what a length merely promises", () => {
    const before = process.memoryUsage().arrayBuffers
    const kept = Array.from({ length: 20 }, () => {
      const frames = new Frames()
      frames.push(concat([header(0x64, 0x3fff_ffff), new Uint8Array(1000)]))
      assert.isFalse(frames.next())
      return frames
    })
    const grown = process.memoryUsage().arrayBuffers - before
    assert.isBelow(grown, kept.length * 256 * 1024)
    assert.strictEqual(kept.at(-1)!.pending, 1005)
  })

  it("gathers one huge frame over many reads, each byte copied twice at most", () => {
    const payload = new Uint8Array(16 << 20)
    for (let at = 0; at < payload.length; at += 4096) payload[at] = at >>> 12
    const frame = encodeFrame(0x64, payload)
    const frames = new Frames()
    const before = process.memoryUsage().arrayBuffers
    const { copied, result: isWhole } = countingCopies(() => {
      for (let at = 0; at < frame.length; at += 8192) {
        frames.push(frame.subarray(at, at + 8192))
        if (frames.next()) return at + 8192 >= frame.length
      }
      return false
    })
    assert.isTrue(isWhole)
    assert.strictEqual(frames.end - frames.start, payload.length)
    assert.strictEqual(Buffer.compare(frames.bytes.subarray(frames.start, frames.end), payload), 0)
    // Joining read by read would copy a thousand times as much.
    assert.isBelow(copied, 2 * frame.length)
    // The buffer and those it outgrew, collected or not.
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 3 * frame.length)
  })

  const anyBytes = Arbitrary.array(
    Arbitrary.schema(Schema.Literals([0, 0, 0, 0, 1, 4, 5, 6, 7, 9, 0x64, 0x77, 0x7f, 0x80, 0xff])),
    { maxLength: 60 }
  )
  it.prop(
    "whatever bytes come, cut wherever, there are frames or one DecodeError",
    { anyBytes, cut: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 })) },
    ({ anyBytes, cut }) => {
      const bytes = Uint8Array.from(anyBytes)
      const frames = new Frames(64)
      try {
        for (const read of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
          frames.push(read)
          while (frames.next()) {
            assert.isAtLeast(frames.end, frames.start)
            assert.isAtMost(frames.end, frames.bytes.length)
          }
        }
      } catch (error) {
        assert.instanceOf(error, DecodeError)
      }
    },
    { arbitrary: { runs: 2000 } }
  )
})

describe("encodeFrame", () => {
  it("counts the length word itself, and copies the payload", () => {
    const payload = Uint8Array.of(7, 8)
    const frame = encodeFrame(0x64, payload)
    payload.fill(0)
    assert.deepStrictEqual(frame, Uint8Array.of(0x64, 0, 0, 0, 6, 7, 8))
    assert.deepStrictEqual(encodeFrame(0x63, new Uint8Array(0)), Uint8Array.of(0x63, 0, 0, 0, 4))
  })
})
