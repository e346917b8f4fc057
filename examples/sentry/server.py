"""bugsink, a server that speaks Sentry's protocol, and what it has stored."""

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from common import free_ports

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Event:
    """An event as bugsink stored it, and the issue that it made it part of."""

    issue: str
    data: dict
    # What people see in the list of issues, of which the latest event counts.
    title: str

    @property
    def key(self):
        """Trace and span."""
        trace = self.data.get("contexts", {}).get("trace", {})
        return trace.get("trace_id"), trace.get("span_id")

    @property
    def service(self):
        """Whose failure it is: Sentry has no place for that but a tag."""
        tags = self.data.get("tags") or {}
        return (tags if isinstance(tags, dict) else dict(tags)).get("service")


class Bugsink:
    """bugsink. `cache` is where its empty database stays from one run to the next."""

    def __init__(self, programs, work, cache):
        self._files = work / "bugsink"
        self._files.mkdir()
        port = free_ports(1)[0]
        self._environment = {
            "BUGSINK_FILES": self._files,
            "BUGSINK_URL": f"http://127.0.0.1:{port}",
            "DJANGO_SETTINGS_MODULE": "bugsink_conf",
            "PYTHONPATH": HERE,
        }
        shutil.copy(self._empty(cache), self._database)
        self.address = programs.start(
            "bugsink",
            r"Listening at: http://([\d.]+):(\d+)",
            sys.executable,
            "-m",
            "gunicorn",
            "--no-control-socket",
            "--bind",
            f"127.0.0.1:{port}",
            "--threads",
            "4",
            "bugsink.wsgi",
            **self._environment,
        )

    def project(self, name):
        """Makes a project; returns its number and its DSN."""
        number, key = self._python(HERE / "bugsink_project.py", name).split()
        return number, f"http://{key}@{self.address[0]}:{self.address[1]}/{number}"

    @property
    def _database(self):
        return self._files / "db.sqlite3"

    def _python(self, *command):
        told = {key: str(each) for key, each in self._environment.items()}
        done = subprocess.run(
            [sys.executable, *command], env=os.environ | told, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"bugsink: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
        # What is asked for comes last.
        return done.stdout.splitlines()[-1]

    def _empty(self, cache):
        """An empty database, which takes half a minute to make the first time."""
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "bugsink.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = cache / "bugsink.sqlite3"
            if not made.exists():
                self._python("-m", "django", "migrate")
                with closing(sqlite3.connect(self._database)) as database:
                    database.execute("PRAGMA journal_mode=DELETE")
                self._database.rename(made)
            return made

    def events(self, project):
        """What is stored of a project, the earliest first."""
        # The columns are what bugsink made of the event, and a message is of a type that it does not show.
        query = """SELECT issue_id, data, calculated_type, calculated_value FROM events_event
            WHERE project_id = ? ORDER BY digested_at, digest_order"""
        with closing(sqlite3.connect(self._database)) as database:
            return [
                Event(issue, json.loads(data), title(kind, value))
                for issue, data, kind, value in database.execute(query, (project,))
            ]

    def everything(self):
        """Every value in every table, and every file: (where, bytes). Envelopes are there as they came."""
        with closing(sqlite3.connect(self._database)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for each in row:
                        if isinstance(each, str | bytes):
                            yield f"bugsink's table {table}", each.encode() if isinstance(each, str) else each
        for file in self._files.rglob("*"):
            if file.is_file():
                yield f"bugsink's file {file.name}", file.read_bytes()


def title(kind, value):
    """As bugsink puts a title together."""
    first = (value.splitlines() or [""])[0]
    return first if kind == "Log Message" else f"{kind}: {first}" if first else kind
