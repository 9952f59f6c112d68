// What both Node peers share: the envelope as the servers in the field write it, options, JSON lines.
'use strict';

const crypto = require('crypto');

/** The text that is signed: parsed members, serialised again in the order of the document. */
function signedText({ type, agentId, ts, nonce, payload }) {
  return JSON.stringify({ type, agentId, ts, nonce, payload });
}

function sign(envelope, secret) {
  return crypto.createHmac('sha256', secret).update(signedText(envelope)).digest('hex');
}

/** Whether the signature is right. False, not an exception, for one that is no hex of 32 bytes. */
function verifies(envelope, secret) {
  const given = Buffer.from(String(envelope.signature), 'hex');
  const expected = Buffer.from(sign(envelope, secret), 'hex');
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

/** One whole signed message as text. `more` overrides members: { ts: 0 } is an old message. */
function seal(secret, type, agentId, payload, more = {}) {
  const envelope = { type, agentId, ts: Date.now(), nonce: crypto.randomUUID(), payload, ...more };
  return JSON.stringify({ ...envelope, signature: more.signature ?? sign(envelope, secret) });
}

/** `--name value` and `--flag` into { name: 'value', flag: true }; an unknown one ends the program. */
function options(defaults) {
  const found = { ...defaults };
  const words = process.argv.slice(2);
  while (words.length > 0) {
    const name = words.shift().replace(/^--/, '');
    if (!(name in defaults)) {
      console.error(`unknown option --${name}; known: ${Object.keys(defaults).join(', ')}`);
      process.exit(2);
    }
    found[name] = typeof defaults[name] === 'boolean' ? true : words.shift();
  }
  return found;
}

function emit(event, members = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...members })}\n`);
}

/** Calls `act[line.do](line)` for each JSON line on standard input; its end ends the program. */
function control(act) {
  const lines = require('readline').createInterface({ input: process.stdin });
  lines.on('line', (text) => {
    let line;
    try {
      line = JSON.parse(text);
      if (typeof act[line.do] !== 'function') throw new Error(`unknown control: ${line.do}`);
      act[line.do](line);
    } catch (error) {
      emit('control_error', { message: String(error.message), line: text });
    }
  });
  lines.on('close', () => process.exit(0));
}

module.exports = { control, emit, options, seal, sign, signedText, verifies };
