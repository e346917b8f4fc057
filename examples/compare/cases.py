"""What is asked of the services, by whom."""

from dataclasses import dataclass, field
from typing import Callable

# A trace that a caller began.
PARENT = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
TRACEPARENT = f"00-{PARENT[0]}-{PARENT[1]}-01"
TEN = "ten.bin"


@dataclass
class Case:
    """`run` is a list of arguments for curl, or a function of a browser's session."""

    service: str
    name: str
    run: list | Callable
    # The response repeats the request, so the additions are in it.
    echo: bool = False
    # The body has to come in pieces over this many seconds.
    spread: float = 0.0
    # Response headers that are random.
    random: tuple = ()
    # What a random part of both bodies and heads looks like.
    volatile: str = ""
    parent: bool = False
    # Under HTTP/2 through tracecar, compared to HTTP/1.1 directly.
    http2: bool = False
    # The service answers before it has read the body, so how much of it a span has seen is a matter of chance.
    early: bool = False
    # Why this case is known to differ. It is shown, and does not fail the comparison unless that is strict.
    known: str = ""
    # For WebSockets: where, and how.
    path: str = ""
    options: dict = field(default_factory=dict)
    # Not in the short form.
    long: bool = False
    client: str = ""

    def __post_init__(self):
        self.client = self.client or ("browser" if callable(self.run) else "curl")


def cases(files):
    ten, small = f"@{files / TEN}", f"@{files / 'small.bin'}"
    return [
        *httpbin_curl(ten, small),
        *httpbin_browser(files),
        *app_curl(ten, small),
        *app_browser(files),
        *app_websocket(),
    ]


def httpbin_curl(ten, small):
    def curl(name, *arguments, **more):
        return Case("httpbin", name, list(arguments), **more)

    def h2(name, *arguments, **more):
        return curl(f"h2 {name}", "--http2-prior-knowledge", *arguments, http2=True, **more)

    yield curl("get", "{}/get?a=1&b=two&card=4111", echo=True)
    yield curl("get with all headers", "{}/get?show_env=1", "-H", "X-Forwarded-For: 192.0.2.1", "-H", "Via: 1.0 a", echo=True)
    yield curl("head", "--head", "{}/get", echo=True)
    yield curl("html", "{}/html")
    yield curl("http/1.0", "--http1.0", "{}/stream/5", echo=True)
    yield curl("options", "-X", "OPTIONS", "{}/get")
    yield curl("put", "-X", "PUT", "-d", "a=1", "{}/put", echo=True)
    yield curl("patch", "-X", "PATCH", "-d", "a=1", "{}/patch", echo=True)
    yield curl("delete", "-X", "DELETE", "{}/delete", echo=True)
    yield curl("unknown method", "-X", "PURGE", "{}/get")
    yield curl("lower-case method", "-X", "get", "{}/get")
    yield curl("trace", "-X", "TRACE", "{}/anything", echo=True)
    for code in (200, 201, 202, 204, 206, 299, 300, 301, 304, 400, 401, 402, 404, 405, 406, 418, 429, 500, 501, 503, 504):
        yield curl(f"status {code}", f"{{}}/status/{code}")
    yield curl("form", "-d", "name=a b&name=c", "--data-urlencode", "q=ä&=", "{}/post", echo=True)
    yield curl("multipart", "-F", "a=1", "-F", f"file={small}", "{}/post", echo=True, volatile="-{24}[0-9A-Za-z]{16,22}")
    yield curl("chunked upload", "-H", "Transfer-Encoding: chunked", "--data-binary", small, "{}/post", echo=True)
    yield curl("expect", "-H", "Expect: 100-continue", "--data-binary", small, "{}/post", echo=True)
    yield curl("empty post", "-X", "POST", "{}/post", echo=True)
    yield curl("post of length 0", "-d", "", "{}/post", echo=True)
    yield curl("10 MiB there and back", "-H", "Content-Type: application/octet-stream", "--data-binary", ten, "{}/post", echo=True)
    yield curl("gzip", "--compressed", "{}/gzip", echo=True)
    yield curl("deflate", "{}/deflate", echo=True)
    yield curl("brotli", "{}/brotli", echo=True)
    yield curl("redirects", "-L", "{}/redirect/3", echo=True)
    yield curl("absolute redirect", "-L", "{}/absolute-redirect/2", echo=True)
    yield curl("redirect of a post", "-L", "-d", "a=1", "{}/redirect-to?url=/post&status_code=307", echo=True)
    yield curl("basic auth", "-u", "me:secret", "{}/basic-auth/me/secret")
    yield curl("basic auth refused", "-u", "me:wrong", "{}/basic-auth/me/secret")
    yield curl("bearer", "-H", "Authorization: Bearer abc", "{}/bearer")
    yield curl("conditional", "-H", 'If-None-Match: "v1"', "{}/etag/v1")
    yield curl("conditional failed", "-H", 'If-Match: "v2"', "{}/etag/v1")
    yield curl("range", "-r", "10-19", "{}/range/100")
    yield curl("range not satisfiable", "-r", "500-", "{}/range/100")
    yield curl("stream", "{}/stream/20", echo=True)
    yield curl("stream-bytes", "{}/stream-bytes/50000?seed=1")
    yield curl("bytes", "{}/bytes/100000?seed=1")
    yield curl("drip", "{}/drip?duration=1&numbytes=5&delay=0", spread=0.7)
    yield curl("delay", "{}/delay/1", echo=True, long=True)
    yield curl("utf8", "{}/encoding/utf8")
    for kind in ("png", "jpeg", "webp", "svg"):
        yield curl(f"image {kind}", f"{{}}/image/{kind}")
    yield curl("image by accept", "-H", "Accept: image/webp", "{}/image")
    yield curl("odd response headers", "{}/response-headers?X-MiXeD-CaSe=1&X-MiXeD-CaSe=2&ETag=abc&x-lower=%20a%20")
    yield curl("set cookies", "{}/cookies/set?a=1&b=2&c=3")
    yield curl("odd path", "--path-as-is", "{}/anything/a/../b//c/%2e%2F%20+;x?q=%2f&&=&é=ü", echo=True)
    yield curl("long path", "{}/anything/" + "a" * 4000, echo=True)
    yield curl("host with a port", "http://shop.example:8081/get", echo=True)
    yield curl("many headers", *[word for n in range(60) for word in ("-H", f"X-Number-{n}: {n}")], "{}/get", echo=True)
    yield curl("no user agent", "-H", "User-Agent:", "-H", "Accept:", "{}/get", echo=True)
    yield curl("parent", "-H", f"traceparent: {TRACEPARENT}", "-H", "tracestate: a=1,b=2", "-H", "baggage: k=v;p=1, x=%20y", "{}/get", echo=True, parent=True)
    yield curl("correlation", "-H", "X-Request-ID: req-1", "{}/get?show_env=1", echo=True)
    yield h2("get", "{}/get?a=1", echo=True)
    yield h2("post", "--data-binary", small, "{}/post", echo=True)
    yield h2("status 404", "{}/status/404")
    yield h2("10 MiB there and back", "-H", "Content-Type: application/octet-stream", "--data-binary", ten, "{}/post", echo=True, long=True)


def httpbin_browser(files):
    small = (files / "small.bin").read_bytes()

    def browser(name, run, **more):
        return Case("httpbin", name, run, **more)

    yield browser("pages of one session", lambda c: [c.get(f"/links/4/{n}") for n in range(4)])
    yield browser("redirects", lambda c: c.get("/redirect/3"), echo=True)
    yield browser("cookies", lambda c: [c.get("/cookies/set?session=abc&theme=dark"), c.get("/cookies"), c.get("/cookies/delete?theme"), c.get("/cookies")])
    yield browser("gzip, deflate and br", lambda c: [c.get("/gzip"), c.get("/deflate"), c.get("/brotli")], echo=True)
    yield browser("basic auth", lambda c: [c.get("/basic-auth/me/secret"), c.get("/basic-auth/me/secret", auth=("me", "secret"))])
    yield browser("form", lambda c: c.post("/post", data={"name": "a b", "more": ["1", "2"]}), echo=True)
    yield browser("multipart", lambda c: c.post("/post", files={"file": ("a.bin", small)}, headers={"Content-Type": "multipart/form-data; boundary=simple"}), echo=True)
    yield browser("chunked upload", lambda c: c.post("/post", content=iter([b"a" * 1000, b"b" * 70000, b"c"])), echo=True)
    yield browser("head, then get", lambda c: [c.head("/html"), c.get("/html")])
    yield browser("conditional", lambda c: [c.get("/cache"), c.get("/cache", headers={"If-None-Match": "x"})], random=("etag", "last-modified"), echo=True)
    yield browser("ranges", lambda c: [c.get("/range/1000", headers={"Range": r}) for r in ("bytes=0-9", "bytes=-5", "bytes=990-")])
    yield browser("stream", lambda c: c.get("/stream/20"), echo=True)
    yield browser("drip", lambda c: c.get("/drip?duration=1&numbytes=5&delay=0"), spread=0.7)
    yield browser("image", lambda c: c.get("/image", headers={"Accept": "image/avif,image/webp,*/*"}))
    yield browser("h2 redirects", lambda c: c.get("/redirect/3"), echo=True, http2=True)
    yield browser("errors of a session", lambda c: [c.get(f"/status/{code}") for code in (404, 500, 204, 503, 304, 200)])


def app_curl(ten, small):
    def curl(name, *arguments, **more):
        return Case("app", name, list(arguments), **more)

    yield curl("echo", "-H", "X-MiXeD: 1", "-H", "x-many: 1", "-H", "X-Many: 2", "{}/echo?a=1", echo=True)
    yield curl("odd target", "--path-as-is", "{}/echo/a/../b//%2e%2F%20;x?q=%2f&&=", echo=True)
    yield curl("empty query", "{}/echo?", echo=True)
    yield curl("template", "{}/items/7")
    yield curl("template not matched by value", "{}/items/seven")
    yield curl("unknown path", "{}/nothing")
    yield curl("method not allowed", "-X", "DELETE", "{}/items/7")
    yield curl("upload of 10 MiB", "--data-binary", ten, "{}/upload")
    yield curl("chunked upload of 10 MiB", "-H", "Transfer-Encoding: chunked", "--data-binary", ten, "{}/upload")
    yield curl("upload of 10 MiB without expect", "-H", "Expect:", "--data-binary", ten, "{}/upload")
    yield curl("download of 10 MiB", "{}/download")
    yield curl("file of 10 MiB", "{}/file")
    yield curl("file head", "--head", "{}/file")
    yield curl("file range", "-r", "1000-1999", "{}/file")
    yield curl("file ranges", "-r", "0-9,100-109", "{}/file", volatile="[0-9a-f]{26}")
    yield curl("refused before the body", "-H", "Expect: 100-continue", "--data-binary", small, "{}/reject", early=True)
    yield curl("refused without expect", "-H", "Expect:", "--data-binary", small, "{}/reject", early=True)
    yield curl("odd headers", "{}/odd")
    yield curl("obs-text in a request", "-H", b"X-Latin: caf\xe9".decode("latin-1"), "{}/echo", echo=True)
    yield curl("connection names a header", "-H", "Connection: close", "{}/items/1")
    yield curl("te trailers", "-H", "TE: trailers", "-H", "Connection: TE", "{}/items/1")
    yield curl("gzip", "--compressed", "{}/page")
    yield curl("conditional", "-H", 'If-None-Match: "v1"', "{}/cached")
    for code in (204, 205, 299, 304, 404, 418, 451, 500, 503, 599):
        yield curl(f"code {code}", f"{{}}/code/{code}")
    yield curl("uncaught exception", "{}/fail")
    yield curl("slow", "{}/slow", spread=0.5)
    yield curl("events", "-N", "{}/events", spread=0.5)
    yield curl("http/1.0", "--http1.0", "{}/slow", spread=0.5)
    yield curl("h2 download of 10 MiB", "--http2-prior-knowledge", "{}/download", http2=True)
    yield curl("h2 upload of 10 MiB", "--http2-prior-knowledge", "--data-binary", ten, "{}/upload", http2=True)
    yield curl("h2 odd headers", "--http2-prior-knowledge", "{}/odd", http2=True)
    yield curl("h2 events", "-N", "--http2-prior-knowledge", "{}/events", http2=True, spread=0.5)


def app_browser(files):
    ten = (files / TEN).read_bytes()

    def browser(name, run, **more):
        return Case("app", name, run, **more)

    def conditional(session):
        tag = session.get("/file", headers={"Range": "bytes=0-0"}).headers["etag"]
        session.get("/file", headers={"Range": "bytes=5-9", "If-Range": tag})
        session.get("/file", headers={"Range": "bytes=5-9", "If-Range": '"other"'})
        session.get("/cached")
        session.get("/cached", headers={"If-None-Match": '"v1"'})

    yield browser("login", lambda c: [c.get("/login"), c.get("/me")])
    yield browser("compressed page", lambda c: c.get("/page"))
    yield browser("conditional and ranges", conditional)
    yield browser("10 MiB up and down", lambda c: [c.post("/upload", content=ten), c.get("/download")])
    yield browser("10 MiB up in chunks", lambda c: c.post("/upload", content=iter([ten[n : n + 65536] for n in range(0, len(ten), 65536)])))
    yield browser("events", lambda c: c.get("/events", headers={"Accept": "text/event-stream"}), spread=0.5)
    yield browser("h2 many requests", lambda c: [c.get(f"/items/{n}") for n in range(20)], http2=True)
    yield browser("h2 login", lambda c: [c.get("/login"), c.get("/me")], http2=True)
    yield browser("many requests", lambda c: [c.get(f"/items/{n}") for n in range(50)])
    yield browser("after an early answer", lambda c: [c.post("/reject", content=ten[:200000]), c.get("/items/1")], early=True)
    # Last, since uvicorn closes the connection after an uncaught exception, without a word of it in the response.
    yield browser("errors of a session", lambda c: [c.get(path) for path in ("/nothing", "/code/204", "/code/304", "/items/1", "/fail")])


def app_websocket():
    def websocket(name, run, path="/ws", **more):
        return Case("app", name, run, client="websocket", path=path, **more)

    def talk(socket):
        answers = []
        for message in ("hello", "ä", "", b"\x00\xff", b"b" * 3_000_000, "t" * 200_000, ["in ", "pieces"]):
            socket.send(message)
            answers.append(socket.recv())
        return answers

    yield websocket("talk", talk)
    yield websocket("talk, compressed", talk, options={"compression": "deflate"})
    yield websocket("ping", lambda socket: socket.ping(b"1").wait(10))
    yield websocket("closed by the app", lambda socket: [socket.send("please close"), *socket])
    yield websocket("subprotocol", talk, options={"subprotocols": ["chat", "superchat"]})
    yield websocket("refused", talk, path="/closed-room")
