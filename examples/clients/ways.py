"""The ways out, and what tracecar should say about calls that go by them."""

import os
from collections import Counter
from dataclasses import dataclass

# What the URL of a span shows of `?key=secret`.
HIDDEN = "?key=REDACTED"


@dataclass
class Way:
    name: str
    # The base URL that clients are told.
    base: str
    # The server that is meant, and its name and port as a span should have them.
    target: object
    host: str
    # `service.name` of the tracecar in between.
    service: str
    proxy: str | None = None
    # PEM file of the one authority that the client trusts, and the same for Java.
    trusted: object = None
    trusted_by_java: object = None
    # What people call the destination, where the configuration says so.
    named: str | None = None
    # Nothing but bytes is to be seen.
    unseen: bool = False

    def environment(self, home):
        """All that a client is told, in the words that the various clients understand."""
        told = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        java = []
        if self.proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                told[name] = told[name.lower()] = self.proxy
            host, _, port = self.proxy.removeprefix("http://").rpartition(":")
            java += [
                f"-D{scheme}.proxy{what}={each}"
                for scheme in ("http", "https")
                for what, each in (("Host", host), ("Port", port))
            ]
            java += ["-Dhttp.nonProxyHosts="]
        if self.trusted:
            names = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"]
            told |= dict.fromkeys(names, str(self.trusted))
            java += [
                f"-Djavax.net.ssl.trustStore={self.trusted_by_java}",
                "-Djavax.net.ssl.trustStorePassword=example",
            ]
        return told | {"JAVA_TOOL_OPTIONS": " ".join(java)}

    def problems(self, asked, connections, spans):
        """What is wrong with the spans of a run of a client, in which the target was asked this."""
        if not asked:
            return ["the target was asked nothing"]
        wrong = [f"a span of kind {span.kind}" for span in spans if span.kind != "CLIENT"]
        wrong += [f"a span that failed: {span.attributes}" for span in spans if span.failed]
        where = {
            "server.address": self.host,
            "server.port": self.target.port,
            "peer.service": self.named,
            "service.peer.name": self.named,
            # The clients are not called by anybody.
            "tracecar.lineage.method": "none",
        }
        for span in spans:
            wrong += differences(span, where)
        if self.unseen:
            return wrong + self.tunnels(asked, connections, spans)
        return wrong + self.requests(asked, spans)

    def tunnels(self, asked, connections, spans):
        """One span for each connection, which says that its inside was not seen."""
        wrong = [] if len(spans) == connections else [f"{len(spans)} spans of {connections} connections"]
        for span in spans:
            wrong += differences(
                span,
                {"http.request.method": "CONNECT", "tracecar.tunnel.unseen": True},
            )
        passed = sum(span.attributes.get("tracecar.response.bytes", 0) for span in spans)
        least = sum(each.sent for each in asked)
        wrong += [] if passed > least else [f"{passed} bytes came back through tunnels, and {least} of content"]
        wrong += (
            []
            if any(span.attributes.get("tracecar.request.bytes", 0) for span in spans)
            else ["no bytes went out through tunnels"]
        )
        wrong += ["a request in a tunnel has a trace context"] if any(each.traced for each in asked) else []
        return wrong

    def requests(self, asked, spans):
        """One span for each request, which says what the target knows of it.

        That holds for plain HTTP in a tunnel, too, which is how undici asks for what is not HTTPS.
        """
        should = Counter(
            (each.method, self.target.url + each.target.replace("?key=secret", HIDDEN), each.status, each.sent)
            for each in asked
        )
        names = ("http.request.method", "url.full", "http.response.status_code", "tracecar.response.bytes")
        found = Counter(tuple(span.attributes.get(name) for name in names) for span in spans)
        wrong = [f"{count} spans too few: {what}" for what, count in (should - found).items()]
        wrong += [f"{count} spans too many: {what}" for what, count in (found - should).items()]
        wrong += [f"a request came without a trace context: {each}" for each in asked if not each.traced]
        return wrong


def differences(span, should):
    """Attributes of a span that are not what they should be."""
    found = {name: span.attributes.get(name) for name in should}
    return [f"{name} is {found[name]!r}, not {each!r}" for name, each in should.items() if found[name] != each]
