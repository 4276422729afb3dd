"""docs/cli.md, made from the commands themselves: `python -m orchestrator.cli.manual > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import click

from orchestrator.cli import main

HEAD = """\
# The command line

Made from the commands themselves by `python -m orchestrator.cli.manual > docs/cli.md`; a test holds it to them.
`headgate VERB --help` says the same.

Data goes to stdout, everything else to stderr, and what is drawn live only to a terminal. With `--json` a command prints JSON,
errors too: `{"error": .., "problems": [..]}`. RUN is the id of a run, the beginning of one, or `latest`. `headgate completion bash`
(zsh, fish) prints what makes a shell complete verbs, options and runs. Settings come from the environment (`HEADGATE_HOME`,
`HEADGATE_REDIS_URL`, ..).

| exit code | |
|---|---|
| 0 | done; the run succeeded, perhaps degraded |
| 1 | the run failed |
| 2 | what was asked for cannot be: an unknown option, run or tenant, a graph with problems |
| 3 | the run was cancelled |
| 4 | refused by a budget or another limit, or ended by its cost |
| 69 | a service is down: no stack runs, no worker serves a task |
| 124 | the waiting timed out, the run goes on |
| 130 | Ctrl-C: the watching ended, the run goes on |
"""


def manual() -> str:
    """Return the page."""
    with click.Context(main, info_name="headgate") as context:
        return HEAD + "".join(_sections(main, ("headgate",), context))


def _sections(group: click.Group, words: Sequence[str], above: click.Context) -> Iterator[str]:
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        if command is None or command.hidden:
            continue
        path = (*words, name)
        with click.Context(command, info_name=name, parent=above) as context:
            yield _section(command, path, context)
            if isinstance(command, click.Group):
                yield from _sections(command, path, context)


def _section(command: click.Command, path: Sequence[str], context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"\n{'#' * min(4, len(path))} `{' '.join(path)}`\n", f"```\n{' '.join(path)} {usage}\n```\n"]
    lines.append(inspect.cleandoc(command.help or "").replace("\f", "") + "\n")
    rows = [
        record
        for each in command.get_params(context)
        if (record := each.get_help_record(context)) is not None and "--help" not in each.opts
    ]
    if rows:
        lines += ["| option | |", "|---|---|", *(f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows), ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(manual(), nl=False)
