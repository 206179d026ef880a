// Timers that count, a worker thread, a child process, and a web server on 8080 that tells of them, a line of JSON.
const { createServer } = require("node:http");
const { spawn } = require("node:child_process");
const { Worker } = require("node:worker_threads");
const { randomBytes, createHash } = require("node:crypto");

const kept = randomBytes(4 << 20);
const started = Date.now() + Math.random();
const counts = { timer: 0, worker: 0, child: 0 };
setInterval(() => counts.timer++, 10);
new Worker(
  "let n = 0; setInterval(() => require('node:worker_threads').parentPort.postMessage(++n), 10)",
  { eval: true },
).on("message", (n) => (counts.worker = n));
spawn("sh", ["-c", "while echo; do sleep 0.05; done"]).stdout.on("data", () => counts.child++);
createServer((request, response) => {
  response.setHeader("Connection", "close");
  const digest = createHash("sha256").update(kept).digest("hex");
  response.end(JSON.stringify({ started, kept: digest, counts: Object.values(counts) }));
}).listen(8080);
