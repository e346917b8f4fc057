// The stock: Node's own server and fetch, which knows of no proxy. It calls the leaf, and passes no header on.

import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const { LEAF_URL, TRUTH, PORT } = process.env;
const withIds = process.env.CALLS === "ids";
// The share of requests that make a call after they have been answered.
const lateShare = Number(process.env.LATE);
// Calls per second that no request causes.
const perSecond = Number(process.env.BACKGROUND);

const ending = new AbortController();
const work = () => sleep(Math.random() * 5);

// As truth.py notes it.
async function call(cause, kind, item) {
  const response = await fetch(`${LEAF_URL}/leaf/${withIds ? item : "next"}`);
  await response.text();
  const [timing, served] = [response.headers.get("server-timing"), response.headers.get("x-served")];
  appendFileSync(TRUTH, JSON.stringify({ cause, kind, timing, served }) + "\n");
  return response.status;
}

async function background() {
  while (!ending.signal.aborted) {
    await sleep((-Math.log(1 - Math.random()) / perSecond) * 1000, null, { signal: ending.signal }).catch(() => {});
    if (!ending.signal.aborted) await call(null, "background", randomUUID());
  }
}

const server = createServer(async (request, response) => {
  const item = request.url.split("/").pop();
  const served = randomUUID();
  let status = 500;
  try {
    await work();
    status = (await call(served, "call", item)) === 200 ? 200 : 502;
    await work();
  } catch (error) {
    console.error(error);
  }
  response.writeHead(status, { "x-served": served, "content-type": "text/plain" });
  response.end("taken\n");
  if (Math.random() < lateShare) {
    await sleep(5 + Math.random() * 95);
    await call(served, "late", item);
  }
});

server.listen(Number(PORT), "127.0.0.1", () => {
  console.error(`listening at http://127.0.0.1:${server.address().port}`);
  if (perSecond > 0) background();
});
process.on("SIGTERM", () => {
  ending.abort();
  server.close();
});
