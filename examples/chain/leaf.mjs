// The leaf: it calls nobody.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const server = createServer((_, response) => {
  response.writeHead(200, { "x-served": randomUUID(), "content-type": "text/plain" });
  response.end("there is some\n");
});
server.listen(Number(process.env.PORT), "127.0.0.1", () => {
  console.error(`listening at http://127.0.0.1:${server.address().port}`);
});
process.on("SIGTERM", () => server.close());
