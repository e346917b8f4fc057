"""tracecar, nginx and HAProxy, each with a listener for every case, so that what a service gets is of one case for sure."""

import os
import shutil
import socket
import subprocess
import time

from common import TRACECAR_READY, free_ports

NGINX = """
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx-error.log crit; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
  uwsgi_temp_path {work}/u; scgi_temp_path {work}/s; client_max_body_size 0;
  large_client_header_buffers 8 64k; lingering_close off;
{servers}
}}
"""
NGINX_SERVER = """  server {{ listen unix:{path}; server_name shop; location / {{
    proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header Connection "";
  }} }}
"""
HAPROXY = """
global
  maxconn 4096
  tune.bufsize 131072
  tune.http.maxhdr 1024
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout http-request 10s
  http-reuse never
  retries 0
{parts}
"""
HAPROXY_PART = """listen case{number}
  bind unix@{path}
  server s 127.0.0.1:{port}
"""


class Peer:
    """A proxy that listens, and where: one address for each case."""

    def __init__(self, name, version, places):
        self.name, self.version, self.places = name, version, places

    def connect(self, number):
        place = self.places[number]
        if isinstance(place, int):
            return socket.create_connection(("127.0.0.1", place))
        there = socket.socket(socket.AF_UNIX)
        there.connect(str(place))
        return there


class Daemon:
    """A program that says nothing when it is ready."""

    def __init__(self, command, log):
        self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait_for(self, path):
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(path))
                return True
            except OSError:
                time.sleep(0.02)
        return False

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def tracecar(programs, binary, work, ports):
    """One process, and an inbound listener for each case."""
    places = free_ports(len(ports))
    inbound = "\n".join(
        f"  - {{ listen: '127.0.0.1:{place}', to: 'http://127.0.0.1:{port}' }}"
        for place, port in zip(places, ports, strict=True)
    )
    file = work / "tracecar.yaml"
    file.write_text(
        "service: { name: conformance }\nadmin: { listen: '127.0.0.1:0' }\n"
        f"runtime: {{ workers: 1 }}\ninbound:\n{inbound}\n"
    )
    programs.start("tracecar", TRACECAR_READY, binary, "run", "--config", file, OTEL_TRACES_EXPORTER="none")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    return Peer("tracecar", version, places)


def nginx(work, ports):
    """The peer and what has to be stopped, or None where nginx cannot be had."""
    if not shutil.which("nginx"):
        return None
    work.mkdir()
    places = [work / f"{number}.sock" for number in range(len(ports))]
    servers = "".join(NGINX_SERVER.format(path=path, port=port) for path, port in zip(places, ports, strict=True))
    # The sockets are in a directory that is ours only.
    user = "user root;" if os.geteuid() == 0 else ""
    (work / "nginx.conf").write_text(NGINX.format(work=work, servers=servers, user=user))
    return begin("nginx", ["nginx", "-p", work, "-c", work / "nginx.conf"], ["nginx", "-v"], work, places)


def haproxy(work, ports):
    """The same for HAProxy."""
    if not shutil.which("haproxy"):
        return None
    work.mkdir()
    places = [work / f"{number}.sock" for number in range(len(ports))]
    parts = "".join(
        HAPROXY_PART.format(number=number, path=path, port=port)
        for number, (path, port) in enumerate(zip(places, ports, strict=True))
    )
    (work / "haproxy.cfg").write_text(HAPROXY.format(parts=parts))
    return begin("HAProxy", ["haproxy", "-db", "-f", work / "haproxy.cfg"], ["haproxy", "-v"], work, places)


def begin(name, command, ask_version, work, places):
    told = subprocess.run(ask_version, capture_output=True, text=True, check=False)
    version = next((word for word in (told.stdout + told.stderr).replace("/", " ").split() if word[0].isdigit()), "?")
    log = (work / "log").open("w")
    daemon = Daemon([str(word) for word in command], log)
    if not daemon.wait_for(places[-1]):
        daemon.stop()
        raise SystemExit(f"{name} did not start: {(work / 'log').read_text()[-2000:]}")
    return Peer(name, version, places), daemon
