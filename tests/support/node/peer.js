// A receiving server for tests, the way the servers in the field are written: it parses what it
// gets, serialises it again, and compares signatures. Unlike them it obeys control lines.
//
//   PEER_SECRETS='{"agent-1": "secret"}' node peer.js [--port 0] [--host 127.0.0.1]
//       [--key KEY.pem --cert CERT.pem] [--path /agent] [--mute-pongs] [--accept-all]
//
// Standard output, one JSON object a line, `event` first:
//   listening {port}   open {remote}   message {agentId, type, ts, nonce, payload, bytes, connection}
//   paused   refused {code, reason, text}   sent {nonce, command}   ping   pong   close {agentId, code, reason}
// Standard input, one JSON object a line, `do` first:
//   command {agentId, command, args?, more?}  `more` overrides members of the envelope, after signing
//                                             `signature`, before signing any other
//   secret {agentId, secret}  (from now on)   raw {agentId?, text}   close {agentId?, code, reason}  terminate {agentId?}
//   pause {agentId?}  resume {agentId?}   the socket, not the process
//   ping {agentId?}   stop   (refuses new connections and closes the open ones: 1012)
// Without `agentId`: the newest connection.
'use strict';

const fs = require('fs');
const http = require('http');
const https = require('https');
const { WebSocketServer } = require('ws');
const { control, emit, options, seal, verifies } = require('./lib');

const chosen = options({
  port: '0',
  host: '127.0.0.1',
  key: '',
  cert: '',
  path: '/agent',
  'mute-pongs': false,
  'accept-all': false,
});
const secrets = new Map(Object.entries(JSON.parse(process.env.PEER_SECRETS || '{}')));

const agents = new Map();
let newest = null;
let connections = 0;

const server = chosen.key
  ? https.createServer({ key: fs.readFileSync(chosen.key), cert: fs.readFileSync(chosen.cert) })
  : http.createServer();
const wss = new WebSocketServer({ server, path: chosen.path, autoPong: !chosen['mute-pongs'] });

wss.on('connection', (socket, request) => {
  const connection = (connections += 1);
  let agentId = null;
  newest = socket;
  emit('open', { remote: request.socket.remoteAddress, connection });

  function refuse(code, reason, text) {
    emit('refused', { code, reason, text, connection });
    socket.close(code, reason);
  }

  socket.on('message', (data) => {
    const text = data.toString();
    let envelope;
    try {
      envelope = JSON.parse(text);
      if (typeof envelope !== 'object' || envelope === null) throw new TypeError('no object');
    } catch {
      refuse(1003, 'invalid_json', text);
      return;
    }
    if (!chosen['accept-all']) {
      const secret = secrets.get(envelope.agentId);
      if (secret === undefined) return void refuse(1008, 'unknown_agent', text);
      if (!verifies(envelope, secret)) return void refuse(1008, 'invalid_signature', text);
      if (Math.abs(Date.now() - envelope.ts) > 300_000) {
        return void refuse(1008, 'invalid_timestamp', text);
      }
    }
    agentId = envelope.agentId;
    agents.set(agentId, socket);
    const { type, ts, nonce, payload } = envelope;
    emit('message', { agentId, type, ts, nonce, payload, bytes: data.length, connection });
  });
  socket.on('ping', () => emit('ping', { connection }));
  socket.on('pong', () => emit('pong', { connection }));
  socket.on('error', (error) => emit('socket_error', { message: error.message, connection }));
  socket.on('close', (code, reason) => {
    if (agents.get(agentId) === socket) agents.delete(agentId);
    if (newest === socket) newest = null;
    emit('close', { agentId, code, reason: reason.toString(), connection });
  });
});

function socketFor(line) {
  const socket = line.agentId === undefined ? newest : agents.get(line.agentId);
  if (!socket) throw new Error(`no connection for ${line.agentId ?? 'anybody'}`);
  return socket;
}

control({
  command(line) {
    const { signature, ...more } = line.more ?? {};
    const payload = { command: line.command, args: line.args ?? {} };
    const secret = secrets.get(line.agentId);
    let text = seal(secret, 'command', line.agentId, payload, more);
    if (signature !== undefined) text = JSON.stringify({ ...JSON.parse(text), signature });
    socketFor(line).send(text);
    emit('sent', { nonce: JSON.parse(text).nonce, command: line.command });
  },
  secret: (line) => void secrets.set(line.agentId, line.secret),
  raw: (line) => socketFor(line).send(line.text),
  close: (line) => socketFor(line).close(line.code, line.reason),
  terminate: (line) => socketFor(line).terminate(),
  pause(line) {
    socketFor(line).pause();
    emit('paused');
  },
  resume: (line) => socketFor(line).resume(),
  ping: (line) => socketFor(line).ping(),
  stop() {
    server.close();
    for (const socket of wss.clients) socket.close(1012, 'service_restart');
    emit('stopping');
  },
});

server.on('error', (error) => {
  emit('failed', { message: error.message });
  process.exit(1);
});
server.listen(Number(chosen.port), chosen.host, () => {
  emit('listening', { port: server.address().port });
});
