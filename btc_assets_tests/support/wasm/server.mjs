// Serves a TimescaleDB in WebAssembly (PGlite) on TCP, so that ordinary PostgreSQL clients can talk to it.
//
//   node server.mjs [-c NAME=VALUE]... PORT [DUMP]
//
// PORT 0 is any free one. DUMP is what to start from instead of an empty database. -c sets what the server's command line
// would, as in `-c timescaledb.license=apache`.
//
// Prints `listening PORT` when it is ready. A line `dump PATH` on stdin writes the database to PATH, once no client is
// connected, and prints `dumped PATH`. It exits when stdin closes, so that it cannot outlive the process that started it.
//
// There is one backend, so one client is served at a time; others wait until it has disconnected. The backend runs in a
// thread of its own (backend.mjs), because it blocks while it waits for its client in the middle of a COPY.

import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'

const CANCEL_REQUEST = 80877102
const SSL_REQUEST = 80877103
const GSSENC_REQUEST = 80877104

const { values, positionals } = parseArgs({
  options: { configuration: { type: 'string', short: 'c', multiple: true, default: [] } },
  allowPositionals: true,
})
const [port = '0', dump] = positionals
const configuration = Object.fromEntries(values.configuration.map((text) => text.split(/=(.*)/s, 2)))

// How many things the backend was sent. A thread that blocks sees no events, but it can wait for a number to change.
const sent = new Int32Array(new SharedArrayBuffer(4))
const backend = new Worker(new URL('backend.mjs', import.meta.url), {
  workerData: { configuration, dump, sent },
})

function send(item) {
  backend.postMessage(item)
  Atomics.add(sent, 0, 1)
  Atomics.notify(sent, 0)
}

const waiting = []
let current = null // the client that the backend serves, or the dump that it writes

function next() {
  if (current || waiting.length === 0) return
  current = waiting.shift()
  send({ dump: current.dump })
  for (const chunk of current.early ?? []) send({ data: chunk })
}

// Answers what a client may ask before its session starts; returns whether it did. A client waits for these answers, so each
// request comes alone. And none stands in line for them: one to cancel comes from a client that is being served.
function negotiate(socket, chunk) {
  const request = chunk.length === 8 || chunk.length === 16 ? chunk.readInt32BE(4) : null
  if (request === SSL_REQUEST || request === GSSENC_REQUEST) socket.write('N')
  else if (request === CANCEL_REQUEST) socket.destroy() // the backend cannot be interrupted
  else return false
  return true
}

function accept(socket) {
  const client = { socket, early: [], started: false }
  socket.setNoDelay(true)
  socket.on('data', (chunk) => {
    if (!client.started && negotiate(socket, chunk)) return
    client.started = true
    if (client === current) send({ data: chunk })
    else client.early.push(chunk)
  })
  socket.on('error', () => {}) // clients may vanish; what matters is the `close` that follows
  socket.on('close', () => {
    if (client === current) return send({ end: true })
    const place = waiting.indexOf(client)
    if (place >= 0) waiting.splice(place, 1)
  })
  waiting.push(client)
  next()
}

const server = createServer(accept)

backend.on('message', ({ event, data }) => {
  if (event === 'ready') {
    server.listen(Number(port), '127.0.0.1', () => console.log(`listening ${server.address().port}`))
  } else if (event === 'data') {
    if (current.socket.writable) current.socket.write(data)
  } else if (event === 'hangup') {
    current.socket.destroySoon()
  } else if (event === 'done') {
    if (current.dump) console.log(`dumped ${current.dump}`)
    current = null
    next()
  }
})
backend.on('error', (error) => {
  console.error(error)
  process.exit(1)
})

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [, path] = line.match(/^dump (.+)$/) ?? []
    if (!path) return
    waiting.push({ dump: path })
    next()
  })
  .on('close', () => process.exit(0))
