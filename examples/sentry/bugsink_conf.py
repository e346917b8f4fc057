"""Settings of bugsink for a short life on one machine; where its files are is in BUGSINK_FILES."""

import os
import secrets

from bugsink.settings.default import *  # noqa: F403
from bugsink.settings.default import DATABASES

_files = os.environ["BUGSINK_FILES"]

SECRET_KEY = secrets.token_hex(32)
DATABASES["default"]["NAME"] = f"{_files}/db.sqlite3"
# A thousand events are several thousand transactions, and nobody needs them after a crash of the machine.
DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL"
# Nothing else may wait for the one writer that SQLite knows for so long that it gives up.
DATABASES["default"]["OPTIONS"]["timeout"] = 30
DATABASES["snappea"]["NAME"] = f"{_files}/snappea.sqlite3"
# An event is digested before it is answered, so what was answered can be read.
SNAPPEA = {"TASK_ALWAYS_EAGER": True}
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"

_MANY = 1_000_000_000
BUGSINK = {
    "BASE_URL": os.environ.get("BUGSINK_URL", "http://127.0.0.1:8000"),
    "PHONEHOME": False,
    "SINGLE_USER": True,
    "INGEST_STORE_BASE_DIR": f"{_files}/ingestion",
    # What was sent is kept as it came, so that it can be searched for what should not be in it.
    "KEEP_ENVELOPES": _MANY,
    **{
        f"MAX_EVENTS_{whose}PER_{period}": _MANY
        for whose in ("", "PER_PROJECT_")
        for period in ("5_MINUTES", "HOUR", "MONTH")
    },
}
