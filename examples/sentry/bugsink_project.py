"""Makes a project in bugsink, and a user and a team if need be; prints its number and its public key."""

import sys

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from projects.models import Project  # noqa: E402
from teams.models import Team  # noqa: E402

users = get_user_model().objects
if not users.exists():
    users.create_superuser("proof", password="only on loopback")
team, _ = Team.objects.get_or_create(name="proof")
project = Project.objects.create(
    team=team,
    name=sys.argv[1],
    retention_max_event_count=1_000_000,
    alert_on_new_issue=False,
    alert_on_regression=False,
    alert_on_unmute=False,
)
print(project.id, project.sentry_key.hex)
