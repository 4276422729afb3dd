"""The verb that teaches a shell: completion."""

from __future__ import annotations

import click

from orchestrator.cli.output import as_json, print_json

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@as_json
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print what makes SHELL complete verbs, options and runs.

    bash: eval "$(headgate completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish: headgate completion fish >
    ~/.config/fish/completions/headgate.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, "headgate", "_HEADGATE_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
