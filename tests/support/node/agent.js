// A minimal agent on Node and `ws`: the peer of the footprint benchmark, and a client for tests of
// our receiving side that speaks the Node dialect because it is Node.
//
//   AGENT_SECRET=… node agent.js --url wss://127.0.0.1:443/agent --id agent-1 [--ca CA.pem]
//       [--secret …] [--metrics 5] [--heartbeat 30] [--quiet] [--control] [--silent]
//
// It does what the document asks of an agent and no more: auth, metrics, heartbeat, answers to
// commands that verify, reconnection with the documented back-off. Intervals in seconds. With
// --silent it says nothing of its own accord, not even auth.
// Standard output, one JSON object a line (none with --quiet):
//   open   sent {type}   command {command, args, nonce}   refused {reason}   close {code, reason}   paused
// Standard input, only with --control (its end is then the end of the program):
//   {"do": "send", type, payload, more?}   {"do": "raw", text}   {"do": "binary", text}
//   {"do": "close", code, reason}   {"do": "pause"}   {"do": "resume"}
'use strict';

const fs = require('fs');
const os = require('os');
const WebSocket = require('ws');
const { control, emit, options, seal, verifies } = require('./lib');

const chosen = options({
  url: '',
  id: os.hostname(),
  ca: '',
  secret: '',
  metrics: '5',
  heartbeat: '30',
  quiet: false,
  control: false,
  silent: false,
});
const secret = chosen.secret || process.env.AGENT_SECRET || '';
const tell = chosen.quiet ? () => {} : emit;
const VERSION = 'node-1.0.0';

let socket = null;
let attempt = 0;
let before = os.cpus();

function cpuPercent() {
  const now = os.cpus();
  let busy = 0;
  let total = 0;
  now.forEach((cpu, i) => {
    for (const [kind, time] of Object.entries(cpu.times)) {
      const spent = time - (before[i]?.times[kind] ?? 0);
      total += spent;
      if (kind !== 'idle') busy += spent;
    }
  });
  before = now;
  return total > 0 ? (100 * busy) / total : 0;
}

const rounded = (value) => Math.round(value * 100) / 100;

function metrics() {
  const disk = fs.statfsSync('/');
  return {
    cpuPercent: rounded(cpuPercent()),
    memPercent: rounded(100 * (1 - os.freemem() / os.totalmem())),
    diskUsage: rounded(100 * (1 - disk.bavail / disk.blocks)),
  };
}

function send(type, payload, more = {}) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(seal(secret, type, chosen.id, payload, more));
  tell('sent', { type });
}

const answers = {
  ping: () => 'pong',
  get_version: () => VERSION,
  get_machine_id: () => fs.readFileSync('/etc/machine-id', 'utf8').trim(),
  // What a shell prints is full of what the dialects write differently.
  get_status: () => '● jetcamer-agent.service — "active" <since> 5 min & counting\n\tünï\u2028code 🛰',
  run_health_check: () => 'health_ok',
};

function run({ command, args = {} }, nonce) {
  tell('command', { command, args, nonce });
  try {
    const answer = answers[command];
    if (!answer) {
      send('command_result', { command, result: 'unknown_command', error: 'command not recognized' });
      return;
    }
    send('command_result', { command, result: answer(), error: '' });
  } catch (error) {
    send('command_result', { command, result: '', error: error.message });
  }
}

function connect() {
  const ca = chosen.ca ? { ca: fs.readFileSync(chosen.ca) } : {};
  const own = new WebSocket(chosen.url, {
    ...ca,
    perMessageDeflate: false,
    handshakeTimeout: 10_000,
    maxPayload: 1 << 20,
  });
  socket = own;
  const timers = [];

  own.on('open', () => {
    tell('open');
    attempt = 0;
    if (chosen.silent) return;
    send('auth', { hostname: os.hostname(), version: VERSION });
    timers.push(setInterval(() => send('metrics', metrics()), Number(chosen.metrics) * 1000));
    timers.push(
      setInterval(() => send('heartbeat', { status: 'alive' }), Number(chosen.heartbeat) * 1000),
    );
  });
  own.on('message', (data) => {
    let envelope;
    try {
      envelope = JSON.parse(data.toString());
    } catch {
      return tell('refused', { reason: 'invalid_json' });
    }
    if (!verifies(envelope, secret)) return tell('refused', { reason: 'invalid_signature' });
    if (envelope.type === 'command') run(envelope.payload, envelope.nonce);
  });
  own.on('error', (error) => tell('error', { message: error.message }));
  own.on('close', (code, reason) => {
    timers.forEach(clearInterval);
    tell('close', { code, reason: reason.toString() });
    attempt += 1;
    setTimeout(connect, 1000 * Math.min(60, 2 ** attempt));
  });
}

if (chosen.control) {
  control({
    send: (line) => send(line.type, line.payload, line.more),
    raw: (line) => socket.send(line.text),
    binary: (line) => socket.send(Buffer.from(line.text)),
    close: (line) => socket.close(line.code, line.reason),
    pause() {
      socket.pause();
      emit('paused');
    },
    resume: () => socket.resume(),
  });
}

connect();
