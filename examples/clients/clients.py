"""The clients, as they come: how each is run, and what it should get. The environment tells them their way."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import targets

PROGRAMS = Path(__file__).parent / "programs"


@dataclass
class Client:
    name: str
    # The command for a base URL and an empty directory, and what this client alone needs in its environment.
    command: object
    environment: dict
    # What it leaves: the function of the directory and the standard output gives bytes.
    result: object
    should: bytes = targets.BYTES
    # Why it cannot run here, and why it cannot use a proxy here.
    skipped: str | None = None
    unproxied: str | None = None


def reader(name, *command, needs=None):
    """A client that writes what a URL holds to standard output. The query is a secret that no span may show."""
    return Client(
        name,
        lambda base, _: [*command, f"{base}/bytes?key=secret"],
        {},
        lambda _, output: output,
        skipped=needs and missing(needs),
    )


def missing(program):
    return None if shutil.which(program) else f"there is no {program}"


def clients(work, host, quick):
    """All of them, or a few; those that must be built are built below `work`. The targets are at `host`."""
    few = [
        reader("curl", "curl", "--silent", "--show-error", "--fail", needs="curl"),
        pip(),
        npm(),
        reader("requests", sys.executable, PROGRAMS / "with_requests.py"),
    ]
    if quick:
        return few
    return [
        *few,
        reader("httpx", sys.executable, PROGRAMS / "with_httpx.py"),
        reader("aiohttp", sys.executable, PROGRAMS / "with_aiohttp.py"),
        fetch(work),
        net_http(work, host),
        reader("java HttpClient", "java", PROGRAMS / "WithHttpClient.java", needs="java"),
    ]


def pip():
    return Client(
        "pip",
        lambda base, place: [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "--index-url",
            f"{base}/simple/",
            # pip asks for this before it takes anything by plain HTTP.
            *(["--trusted-host", base.removeprefix("http://")] if base.startswith("http:") else []),
            "--dest",
            place,
            targets.PACKAGE,
        ],
        {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        lambda place, _: (place / targets.WHEEL_NAME).read_bytes(),
        targets.WHEEL,
    )


def npm():
    return Client(
        "npm",
        lambda base, place: [
            "npm",
            "install",
            "--silent",
            "--prefix",
            place,
            "--cache",
            place / "cache",
            "--registry",
            f"{base}/",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--fetch-retries=0",
            # The registry names its files by its own name, and a mapped listener has another.
            "--replace-registry-host=always",
            targets.PACKAGE,
        ],
        {},
        lambda place, _: (place / "node_modules" / targets.PACKAGE / "some.bin").read_bytes(),
        skipped=missing("npm"),
    )


def fetch(work):
    """Newer versions of Node ask the environment for a proxy if they are told to; older ones need undici for it."""
    plain = reader("node fetch", "node", PROGRAMS / "with_fetch.mjs", needs="node")
    if plain.skipped:
        return plain
    if "--use-env-proxy" in subprocess.run(["node", "--help"], capture_output=True, text=True, check=True).stdout:
        plain.environment = {"NODE_USE_ENV_PROXY": "1"}
        return plain
    place = work / "undici"
    shutil.copytree(PROGRAMS, place)
    # With the settings of this machine, which are not those of the client.
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", place]
    if missing("npm") or subprocess.run(command, check=False).returncode != 0:
        plain.unproxied = "this version of Node knows no proxy, and undici cannot be had from npm"
        return plain
    plain.name += " (undici)"
    plain.environment = {"NODE_OPTIONS": f"--import={place / 'proxy_from_environment.mjs'}"}
    return plain


def net_http(work, host):
    client = reader("go net/http", work / "with_net_http")
    client.skipped = missing("go")
    command = ["go", "build", "-o", work / "with_net_http", PROGRAMS / "with_net_http.go"]
    if not client.skipped and subprocess.run(command, check=False).returncode != 0:
        client.skipped = "its program cannot be built"
    if host == "localhost":
        client.unproxied = "it uses no proxy for localhost, and this machine has no other name"
    return client
