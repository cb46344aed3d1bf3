"""``snatgw completion``: the shell's completion script, as click writes it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gateway.cli.options import examples


@click.command(
    epilog=examples('eval "$(snatgw completion bash)"', "snatgw completion zsh > ~/.zfunc/_snatgw")
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    program = "snatgw"
    click.echo(found(root.command, {}, program, "_SNATGW_COMPLETE").source())
