// Answers, one line for one line, what a Node server makes of JSON text and of signed messages.
//
// A request is `operation base64 [base64]`, an answer `= base64`, or `!` where Node threw:
//   json TEXT              JSON.stringify(JSON.parse(TEXT))
//   sign SECRET UNSIGNED   the message that a server would send for that object without signature
//   verify SECRET MESSAGE  "true" or "false", after parsing and writing anew, as servers do
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const { createInterface } = require("node:readline");

function hmac(secret, { type, agentId, ts, nonce, payload }) {
  const text = JSON.stringify({ type, agentId, ts, nonce, payload });
  return createHmac("sha256", secret).update(text).digest();
}

const operations = {
  json: (text) => JSON.stringify(JSON.parse(text)),
  sign: (secret, text) => {
    const message = JSON.parse(text);
    return JSON.stringify({ ...message, signature: hmac(secret, message).toString("hex") });
  },
  verify: (secret, text) => {
    const message = JSON.parse(text);
    return String(timingSafeEqual(Buffer.from(message.signature, "hex"), hmac(secret, message)));
  },
};

createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const [name, ...parameters] = line.split(" ");
  let answer;
  try {
    const texts = parameters.map((each) => Buffer.from(each, "base64").toString("utf8"));
    answer = "= " + Buffer.from(operations[name](...texts), "utf8").toString("base64");
  } catch {
    answer = "!";
  }
  process.stdout.write(answer + "\n");
});
