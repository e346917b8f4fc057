// The stock: Express, as somebody might write it. The last digit decides what goes wrong.

const compression = require("compression");
const express = require("express");
const createError = require("http-errors");

const app = express();
app.use(compression({ threshold: 0 }));

class Overdrawn extends Error {
  name = "Overdrawn";
}

const price = (item) => item.offer.price;

app.get("/items/:id", (request, response, next) => {
  const id = Number(request.params.id);
  const address = `172.16.${id % 250}.${id % 13}`;
  switch (id % 10) {
    case 1:
      return response.json({ price: price({ id }) });
    case 2:
      throw new Error(`stock row ${id} is locked by ${address}`);
    case 3:
      return next(createError(503, `depot ${id} is closed`, { headers: { "retry-after": "5" } }));
    case 4:
      return response.status(500).json({ error: `item ${id} has ${-(id % 50) - 1} pieces` });
    case 5:
      return response.status(409).json({ error: `item ${id} is being counted` });
    case 6:
      return response.status(500).json({ message: `row ${id * 7} is locked` });
    case 8:
      return response.status(502).type("text").send(`depot ${address} refused item ${id}\n`);
  }
  response.json({ item: id });
});

app.get("/users/:email/basket", async (request, response) => {
  const { email } = request.params;
  if (email.endsWith("@example.org")) throw new Overdrawn(`basket of ${email} is worth ${email.length}.50 EUR`);
  response.json({ pieces: 0 });
});

app.get("/hosts/:address/ping", (request, response) => {
  const { address } = request.params;
  if (address.startsWith("10.")) {
    return response.status(504).json({ detail: `no answer from ${address} in ${3000 + address.length} ms` });
  }
  response.json({ ping: "ok" });
});

app.get("/exports/:id", (request, response) => {
  switch (Number(request.params.id) % 10) {
    case 1:
      // Dies in the middle of its answer.
      response.set("content-type", "text/csv").set("content-length", "4096").write("item,pieces\n");
      return setTimeout(() => request.socket.destroy(), 20);
    case 2:
      // Dies before it.
      return request.socket.destroy();
  }
  response.type("text/csv").send("item,pieces\n");
});

app.delete("/items/:id", (request, response) => {
  // The same words as elsewhere, by another method.
  response.status(500).json({ message: `row ${request.params.id} is locked` });
});

const server = app.listen(0, "127.0.0.1", () => {
  console.error(`listening at http://127.0.0.1:${server.address().port}`);
});
