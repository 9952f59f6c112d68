// A receiving server for benchmarks: what the servers in the field do, with what ours does besides.
// Each message is parsed, serialised again and verified with its agent's own secret; its time must
// be within five minutes and its nonce new; who is here, and since when, is kept. It prints nothing
// about a message: it counts them.
//
//   node --expose-gc hub.js --secrets FILE [--port 0] [--host 127.0.0.1] [--key KEY.pem --cert CERT.pem]
//
// FILE holds a JSON object of agent id to secret.
// Standard output, one JSON object a line, `event` first:
//   listening {port}   status {verified, refused, agents, connections}
// Standard input, one JSON object a line, `do` first:
//   status   collect (garbage, and then as status)
'use strict';

const fs = require('fs');
const http = require('http');
const https = require('https');
const { WebSocketServer } = require('ws');
const { control, emit, options, verifies } = require('./lib');

const WINDOW = 300_000;

const chosen = options({ port: '0', host: '127.0.0.1', key: '', cert: '', secrets: '' });
const secrets = new Map(Object.entries(JSON.parse(fs.readFileSync(chosen.secrets, 'utf8'))));

const agents = new Map(); // id → { socket, hostname, lastSeen, metrics }
const nonces = new Map(); // id → Map of nonce → ts, the oldest first
let verified = 0;
let refused = 0;

/** Whether the nonce is new. Those of messages that are too old to be accepted are forgotten. */
function isNew({ agentId, nonce, ts }, now) {
  let seen = nonces.get(agentId);
  if (seen === undefined) nonces.set(agentId, (seen = new Map()));
  for (const [old, when] of seen) {
    if (when >= now - WINDOW) break;
    seen.delete(old);
  }
  if (seen.has(nonce)) return false;
  seen.set(nonce, ts);
  return true;
}

const server = chosen.key
  ? https.createServer({ key: fs.readFileSync(chosen.key), cert: fs.readFileSync(chosen.cert) })
  : http.createServer();
server.listen(Number(chosen.port), chosen.host, 4096);
const wss = new WebSocketServer({ server, path: '/agent', perMessageDeflate: false });

wss.on('connection', (socket) => {
  let agentId = null;

  function refuse(code, reason) {
    refused += 1;
    socket.close(code, reason);
  }

  socket.on('message', (data) => {
    let envelope;
    try {
      envelope = JSON.parse(data.toString());
    } catch {
      return refuse(1003, 'invalid_json');
    }
    const secret = secrets.get(envelope.agentId);
    if (secret === undefined) return refuse(1008, 'unknown_agent');
    if (agentId !== null && envelope.agentId !== agentId) return refuse(1008, 'wrong_agent');
    if (!verifies(envelope, secret)) return refuse(1008, 'invalid_signature');
    const now = Date.now();
    if (Math.abs(now - envelope.ts) > WINDOW) return refuse(1008, 'invalid_timestamp');
    if (!isNew(envelope, now)) return refuse(1008, 'replayed_nonce');
    verified += 1;

    if (agentId === null) {
      if (envelope.type !== 'auth') return refuse(1008, 'auth_required');
      agentId = envelope.agentId;
      const before = agents.get(agentId);
      agents.set(agentId, { socket, hostname: envelope.payload.hostname, lastSeen: now, metrics: null });
      if (before) before.socket.close(1000, 'replaced_by_new_connection');
      return;
    }
    const agent = agents.get(agentId);
    if (agent === undefined || agent.socket !== socket) return;
    agent.lastSeen = now;
    if (envelope.type === 'metrics') agent.metrics = envelope.payload;
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    if (agentId !== null && agents.get(agentId)?.socket === socket) agents.delete(agentId);
  });
});

function status() {
  emit('status', { verified, refused, agents: agents.size, connections: wss.clients.size });
}

control({
  status,
  collect() {
    global.gc();
    status();
  },
});

server.on('listening', () => emit('listening', { port: server.address().port }));
