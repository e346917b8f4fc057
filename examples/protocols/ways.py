"""The ways to a service: which protocol is spoken with whom."""

import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import trustme

from common import TRACECAR_READY, free_ports

HERE = "127.0.0.1"


@dataclass
class Way:
    """One listener, and what is spoken to it."""

    name: str
    port: int
    http2: bool = False
    # PEM file of the authority to trust, where TLS is spoken.
    authority: Path | None = None
    # PEM file of a certificate and its key, where callers have to show one.
    certificate: Path | None = None

    @property
    def url(self):
        return f"{'https' if self.authority else 'http'}://localhost:{self.port}"

    @property
    def websocket(self):
        return self.url.replace("http", "ws", 1)

    def context(self):
        if not self.authority:
            return None
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate:
            context.load_cert_chain(self.certificate)
        return context

    def curl(self):
        """Options that make curl go this way."""
        version = "--http1.1"
        if self.http2:
            version = "--http2" if self.authority else "--http2-prior-knowledge"
        options = [version, "--connect-to", f"::{HERE}:{self.port}"]
        if self.authority:
            options += ["--cacert", str(self.authority)]
        if self.certificate:
            options += ["--cert", str(self.certificate)]
        return options


def can_take_tls(tracecar):
    """Whether this tracecar has TLS for those who call the service."""
    schema = json.loads(subprocess.run([tracecar, "schema"], capture_output=True, text=True, check=True).stdout)
    return '"client_auth"' in json.dumps(schema)


def start(programs, options, collector, service):
    """Starts tracecar before the service; returns the ways to it, its forward proxy, and a reason where some are missing."""
    ports = free_ports(4)
    to = f"http://{HERE}:{service}"
    inbound = [{"listen": f"{HERE}:{ports[0]}", "to": to}]
    ways = [Way("http/1.1", ports[0]), Way("h2c", ports[0], http2=True)]
    missing = ""
    if can_take_tls(options.tracecar):
        made = trustme.CA()
        authority, server, client = [options.work / f"{name}.pem" for name in ("authority", "server", "client")]
        made.cert_pem.write_to_path(authority)
        issued = made.issue_cert("localhost", HERE)
        write(issued, server)
        write(made.issue_cert("caller@example.com"), client)
        tls = {"certificates": [{"certificate": str(server), "key": str(server)}]}
        mutual = {**tls, "client_auth": "required", "client_ca": str(authority)}
        inbound.append({"listen": f"{HERE}:{ports[1]}", "to": to, "tls": tls})
        inbound.append({"listen": f"{HERE}:{ports[2]}", "to": to, "tls": mutual})
        for name, port, certificate in (("https", ports[1], None), ("mtls", ports[2], client)):
            ways.append(Way(f"{name}/1.1", port, False, authority, certificate))
            ways.append(Way(f"{name}/2", port, True, authority, certificate))
    else:
        missing = "this tracecar has no TLS for callers"
    config = {
        "service": {"name": "protocols"},
        "inbound": inbound,
        "outbound": {"proxy": f"{HERE}:{ports[3]}"},
        "admin": {"listen": f"{HERE}:0"},
        "export": {"otlp": {"endpoint": collector.url, "queue": {"schedule_delay": "200ms"}}, "console": "off"},
    }
    file = options.work / "tracecar.yaml"
    file.write_text(json.dumps(config, indent=2))
    programs.start("tracecar", TRACECAR_READY, options.tracecar, "run", "--config", file)
    return ways, f"http://{HERE}:{ports[3]}", missing


def write(issued, path):
    """Certificate and key in one file."""
    path.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems) + issued.private_key_pem.bytes())
