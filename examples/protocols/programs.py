"""What programs that nobody here wrote do: curl, h2load, a browser. Each returns what is wrong."""

import hashlib
import json
import re
import shutil
import subprocess
import urllib.request

MIB = 1024 * 1024
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def curl(way, *arguments, data=None):
    """Runs curl; returns its exit status, what it wrote, and the version and status that it saw."""
    command = ["curl", "-sS", "--max-time", "60", "--write-out", "%{stderr}%{http_version} %{http_code}", *way.curl(), *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=90, check=False)
    return done.returncode, done.stdout, done.stderr.decode().strip()


def seen(way, told, status=200):
    version = "2" if way.http2 else "1.1"
    return [] if told == f"{version} {status}" else [f"curl saw {told!r}"]


def curl_gets(way):
    code, body, told = curl(way, f"{way.url}/download")
    should = b"".join(bytes([number]) * 65536 for number in range(160))
    return seen(way, told) + ([] if (code, body) == (0, should) else [f"{len(body)} bytes came, exit status {code}"])


def curl_sends(way):
    problems, data = [], bytes(range(256)) * 4 * 1024 * 5
    for name, options in {
        "with a length": (), "in chunks": ("-H", "Transfer-Encoding: chunked"), "with Expect": ("-H", "Expect: 100-continue"),
        "by PUT": ("-X", "PUT"), "by PATCH": ("-X", "PATCH"),
    }.items():
        _, body, told = curl(way, *options, "--data-binary", "@-", f"{way.url}/echo", data=data)
        echoed = json.loads(body or "{}")
        if echoed.get("sha256") != hashlib.sha256(data).hexdigest():
            problems.append(f"{name}: {echoed}")
        problems += [f"{name}: {problem}" for problem in seen(way, told)]
    return problems


def curl_heads(way):
    code, _, told = curl(way, "--head", f"{way.url}/events")
    return seen(way, told) + ([] if code == 0 else [f"exit status {code}"])


def curl_in_parallel(way):
    """A hundred transfers by one curl, as many at a time as it likes."""
    command = ["curl", "-sS", "--max-time", "60", "--parallel", "--parallel-max", "20", *way.curl(), "--fail"]
    done = subprocess.run(
        [*command, f"{way.url}/echo?[1-100]"], capture_output=True, timeout=90, check=False
    )
    answers = len(re.findall(rb'"length":0', done.stdout))
    return [] if (done.returncode, answers) == (0, 100) else [f"{answers} of 100 answers, {done.stderr.decode()[-200:]}"]


def curl_by_connect(proxy, port):
    """A tunnel through the forward proxy to any port."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", "--proxytunnel", "--proxy", proxy, "--noproxy", "", "--data-binary", "hello",
         "--write-out", "%{http_connect} %{http_code}", f"http://127.0.0.1:{port}/echo"],
        capture_output=True, timeout=60, check=False,
    )
    told = done.stdout.decode()
    return [] if told.endswith("200 200") and '"length":5' in told else [f"curl says {told!r} {done.stderr.decode()!r}"]


def refused_without_certificate(way):
    """Who shows no certificate where one is required gets no answer."""
    options = way.curl()
    at = options.index("--cert")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", *options[:at], *options[at + 2 :], f"{way.url}/echo"],
        capture_output=True, timeout=60, check=False,
    )
    return [] if done.returncode in (16, 35, 55, 56, 92) and not done.stdout else [f"exit status {done.returncode}: {done.stdout!r}"]


def h2load(way, requests):
    if not shutil.which("h2load"):
        return None
    options = ["--h1"] if not way.http2 else ["-m", "20"]
    # It verifies no certificate, and has none to show.
    done = subprocess.run(
        ["h2load", *options, "-n", str(requests), "-c", "20", f"{way.url}/echo"], capture_output=True, text=True, timeout=120, check=False,
    )
    counts = re.search(r"requests: (\d+) total.*?(\d+) succeeded, (\d+) failed", done.stdout)
    codes = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if not counts or (counts[1], counts[2], counts[3]) != (str(requests), str(requests), "0") or codes[1] != str(requests):
        return [f"h2load says: {done.stdout[-600:]} {done.stderr[-200:]}"]
    return []


def browser(way, service, work):
    """Opens the page in a browser without a window, and asks the service what the page has told it."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if not program:
        return None
    profile = work / f"browser-{way.name.replace('/', '-')}"
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors",
        f"--user-data-dir={profile}", "--remote-debugging-port=0", f"{way.url}/page",
    ]
    with (work / "browser.log").open("a") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            # Directly, so that it is not part of what is tried.
            with urllib.request.urlopen(f"http://127.0.0.1:{service}/result", timeout=60) as answer:
                told = json.load(answer)
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
    should = {
        "eventSource": {"came": list("01234"), "streamed": True},
        "streamedResponse": {"text": "0\n1\n2\n3\n4\n", "streamed": True},
        "aborted": {"status": 200},
        "webSocket": {"came": [5, 300000, 5], "protocol": "chat", "code": 4001, "reason": "as you wish"},
        "protocol": "h2" if way.http2 else "http/1.1",
    }
    if way.http2:
        # Browsers stream requests over HTTP/2 only.
        should["streamedRequest"] = {"text": "ONE TWO THREE"}
    return [f"{name}: {told.get(name)}" for name, each in should.items() if told.get(name) != each]
