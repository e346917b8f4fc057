"""Real clients by each way out of tracecar: do they get what they asked for, and what do the spans say?"""

import argparse
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from clients import clients
from common import TRACECAR_READY, Collector, Programs, free_ports, print_table
from targets import Target
from ways import Way

PASSED, FAILED, SKIPPED = "passed", "FAILED", "SKIPPED"


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--only", default="", metavar="TEXT", help="only clients or ways with this in their names")
    options.add_argument("--quick", action="store_true", help="a few clients only")
    options.add_argument(
        "--direct", action="store_true", help="without tracecar, to see that the clients and targets work"
    )
    return options.parse_args()


def own_name():
    """A name and an address of this machine. Some clients use no proxy for what they know to be this host."""
    name = socket.gethostname().lower()
    try:
        return name, socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError:
        return "localhost", "127.0.0.1"


def authority(work, name):
    """A throw-away authority: itself, PEM files of its certificate and key, and its certificate for Java."""
    made = trustme.CA(organization_name=f"Example of {name}")
    certificate, key, java = [work / f"{name}.{kind}" for kind in ("pem", "key", "jks")]
    made.cert_pem.write_to_path(certificate)
    loaded = load_pem_private_key(made.private_key_pem.bytes(), None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    # Where there is no Java, there is no client that asks for it.
    if shutil.which("keytool"):
        subprocess.run(
            [
                "keytool",
                "-importcert",
                "-noprompt",
                "-alias",
                name,
                "-file",
                certificate,
                "-keystore",
                java,
                "-storepass",
                "example",
            ],
            check=True,
            capture_output=True,
        )
    return made, certificate, key, java


def start(options, programs, collector, host, mapped_to, trusted):
    """Two of tracecar, one of which looks into TLS; returns their proxies and the mapped listener."""
    of_targets, local = trusted
    ports = free_ports(7)
    here = "127.0.0.1"
    outbound = {
        "plain": {
            "proxy": f"{here}:{ports[0]}",
            "mapped": [{"listen": f"{here}:{ports[1]}", "to": mapped_to, "name": "target"}],
        },
        "looking": {
            "proxy": f"{here}:{ports[2]}",
            "intercept": {"hosts": [host], "ca_certificate": str(local[1]), "ca_key": str(local[2])},
        },
    }
    for (name, each), inbound, admin in zip(outbound.items(), ports[3:5], ports[5:7], strict=True):
        config = {
            "service": {"name": name},
            # Nobody calls the service; this is about its calls.
            "inbound": [{"listen": f"{here}:{inbound}", "to": f"http://{here}:9"}],
            "outbound": {**each, "certificate": str(of_targets[1])},
            "export": {"otlp": {"endpoint": collector.url, "queue": {"schedule_delay": "200ms"}}, "console": "off"},
            "admin": {"listen": f"{here}:{admin}", "ready_needs_upstream": False},
        }
        file = options.work / f"{name}.yaml"
        file.write_text(json.dumps(config, indent=2))
        programs.start(f"tracecar-{name}", TRACECAR_READY, options.tracecar, "run", "--config", file)
    return [f"http://{here}:{port}" for port in ports[:3]]


def run(client, way, work):
    """Runs a client; returns what went wrong, and when it began and ended."""
    place = Path(tempfile.mkdtemp(dir=work))
    command = [str(word) for word in client.command(way.base, place)]
    began = time.time_ns()
    try:
        done = subprocess.run(
            command, env=way.environment(place) | client.environment, capture_output=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        return ["it did not end in 90 seconds"], (began, time.time_ns())
    spent = began, time.time_ns()
    if done.returncode != 0:
        return [f"it ended with {done.returncode}: {last_words(done)}"], spent
    try:
        right = client.result(place, done.stdout) == client.should
    except OSError as error:
        return [f"it left nothing: {error}"], spent
    return [] if right else ["it got other bytes than there are"], spent


def last_words(done):
    return " / ".join((done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-4:])


def matrix(options, ways, work):
    """Runs each client by each way, and yields what has to be judged when all spans have come."""
    for client in clients(work, ways[0].host, options.quick):
        for way in ways:
            if options.only not in f"{client.name} {way.name}":
                continue
            if skipped := client.skipped or (way.proxy and client.unproxied):
                yield client, way, None, skipped, None
                continue
            way.target.take()
            problems, spent = run(client, way, work)
            yield client, way, problems, way.target.take(), spent


def judge(options, done, spans):
    results, complaints = {}, []
    for client, way, problems, seen, spent in done:
        result = PASSED
        if problems is None:
            result = SKIPPED
            complaints.append(f"{SKIPPED} {client.name}, {way.name}: {seen}")
        else:
            mine = [
                span
                for span in spans
                if span.service == way.service and spent[0] <= span.span.start_time_unix_nano <= spent[1]
            ]
            if not options.direct:
                problems = problems + way.problems(*seen, mine)
            result = FAILED if problems else PASSED
            complaints += [f"{FAILED} {client.name}, {way.name}: {problem}" for problem in problems]
        results.setdefault(client.name, {})[way.name] = result
    return results, list(dict.fromkeys(complaints))


def main():
    options = parse()
    host, address = own_name()
    trusted = of_targets, local = authority(options.work, "targets"), authority(options.work, "local")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_targets[0].issue_cert(host, "127.0.0.1").configure_cert(context)
    by_http, by_https = Target(host, address), Target(host, address, context)
    collector = Collector()
    of_target = {"trusted": of_targets[1], "trusted_by_java": of_targets[3]}
    ways = [
        Way("direct HTTP", by_http.url, by_http, host, "none"),
        Way("direct HTTPS", by_https.url, by_https, host, "none", **of_target),
    ]
    with Programs(options.work) as programs:
        if not options.direct:
            proxy, mapped, looking = start(options, programs, collector, host, by_https.url, trusted)
            ways = [
                Way("forward proxy", by_http.url, by_http, host, "plain", proxy),
                Way("CONNECT", by_https.url, by_https, host, "plain", proxy, **of_target, unseen=True),
                Way("interception", by_https.url, by_https, host, "looking", looking, local[1], local[3]),
                Way("mapped", mapped, by_https, host, "plain", named="target"),
            ]
        done = list(matrix(options, ways, options.work))
        # tracecar sends what it has before it ends.
        others = programs.stop("tracecar") + collector.problems
    results, complaints = judge(options, done, collector.spans)
    names = [way.name for way in ways]
    print(f"\nthe targets are {by_http.url} and {by_https.url}\n")
    print_table(
        ["client", *names], [[client, *[of.get(name, "") for name in names]] for client, of in results.items()]
    )
    print()
    for line in [*complaints, *[f"{FAILED} {problem}" for problem in others]]:
        print(line)
    counts = [
        sum(each == word for of in results.values() for each in of.values()) for word in (PASSED, FAILED, SKIPPED)
    ]
    print("{} passed, {} failed, {} skipped".format(*counts))
    return 1 if counts[1] or others or not counts[0] else 0


if __name__ == "__main__":
    sys.exit(main())
