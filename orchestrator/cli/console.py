"""The verb `console`: Flower with Headgate's pages, in this process."""

from __future__ import annotations

import errno

import click

from orchestrator.cli.output import as_json, print_json, say

APP = "orchestrator.app"
LOOPBACK = "--address=127.0.0.1"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("flower_options", nargs=-1, type=click.UNPROCESSED)
@as_json
def console(flower_options: tuple[str, ...], as_json: bool) -> None:
    """Open the console, until Ctrl-C.

    FLOWER_OPTIONS are those of `celery flower`, such as --port=5555, --basic-auth=name:password or --url-prefix=flower. Only
    this machine can open the console unless an --address is given. With --json its URL goes to stdout once it listens.
    """
    from orchestrator.settings import Settings

    Settings.load().resolved_redis_url()
    from celery.bin.celery import celery  # loads Flower's command, a plugin of Celery's

    import orchestrator.app  # noqa: F401 (what fails there is told in one sentence; Celery would print a traceback)
    from orchestrator.web import entry

    entry.install(announce=lambda url: print_json({"url": url}) if as_json else say(f"console at {url}"))
    own_address = any(each.lstrip("-").replace("-", "_").startswith(("address=", "unix_socket=")) for each in flower_options)
    words = ["--quiet", "flower", *(() if own_address else (LOOPBACK,)), *flower_options]
    try:
        celery.main(["--app", APP, *words], prog_name="celery", standalone_mode=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.UsageError("that port is taken; name a free one, such as --port=5556") from error
