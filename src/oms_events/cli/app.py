"""The tree of commands."""

from __future__ import annotations

import click

from oms_events.cli.check import check
from oms_events.cli.common import EXIT_CODES
from oms_events.cli.demo import demo
from oms_events.cli.dev import up
from oms_events.cli.explain import explain
from oms_events.cli.infra.commands import infra
from oms_events.cli.outbox.commands import outbox
from oms_events.cli.projections.commands import projections
from oms_events.cli.publish import publish
from oms_events.cli.replay.commands import replay
from oms_events.cli.status import status
from oms_events.cli.store.commands import store
from oms_events.cli.trigger.commands import trigger


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oms-events", message="%(prog)s %(version)s")
def app() -> None:
    """Routes CloudEvents to several platforms at once: NATS JetStream, AWS EventBridge and your own.

    The configuration comes from the environment (OMS_NATS_URL, OMS_EVENTBRIDGE_BUS_NAME ...) or from one file,
    see --config of each command. Results go to stdout, messages to stderr.
    """


@app.group()
def dev() -> None:
    """The local stack: a real NATS server and an AWS emulator."""


@app.group()
def route() -> None:
    """Where events go."""


@app.group()
def rules() -> None:
    """The routing rules."""


app.add_command(demo)
app.add_command(infra)
app.add_command(outbox)
app.add_command(projections)
app.add_command(publish)
app.add_command(replay)
app.add_command(status)
app.add_command(store)
app.add_command(trigger)
dev.add_command(up)
route.add_command(explain)
rules.add_command(check)
