"""The group of all commands: names and one-line helps here, everything else imported on use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from gateway import __version__
from gateway.cli.options import INTERRUPTED, ApiPath

# name: (where the command is, its line in the list). The lab and the terminal view are clients of
# their own, mounted here.
COMMANDS = {
    "run": ("gateway.cli.run:run", "Run the gateway in the foreground."),
    "check": ("gateway.cli.check:check", "Validate a configuration, and probe this host."),
    "reload": ("gateway.cli.daemon_commands:reload", "Have the daemon apply its changed file."),
    "flows": ("gateway.cli.flows:flows", "The live flow table."),
    "ports": ("gateway.cli.ports:ports", "SNAT port inventory per VM, public IP and protocol."),
    "explain": ("gateway.cli.explain:explain", "What would happen to a packet, and why."),
    "diagnose": ("gateway.cli.diagnose:diagnose", "What is wrong, and what to do about it."),
    "nsg": ("gateway.cli.nsg:nsg", "Effective security rules, with hit counts."),
    "health": ("gateway.cli.health:health", "Health probes and the backends of inbound rules."),
    "events": ("gateway.cli.events:events", "What happened: exhaustion, drops, reloads."),
    "top": ("gateway.tui.top_command:top", "Flows, SNAT ports and events on a whole screen, live."),
    "capture": ("gateway.cli.capture:capture", "Packets of both sides, as pcapng."),
    "status": ("gateway.cli.daemon_commands:status", "The daemon's state and counters."),
    "import": ("gateway.cli.importing:import_", "Azure's JSON to a configuration."),
    "lab": ("gateway.lab.commands:lab", "The namespace lab: VMs, gateway, internet."),
    "completion": ("gateway.cli.completion:completion", "Shell completion for bash, zsh, fish."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order in which help lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C ends any command without a word, with the status that a shell expects."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in help, for which no command is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "\b\nExamples:\n"
        "  snatgw run --inside lan0 --outside wan0 --public-ip 203.0.113.10\n"
        "  snatgw flows --vm vm1 --sort -bytes --limit 20\n"
        "  snatgw lab up\n\n"
        "\b\nExit status:\n"
        "  0 done, 1 rejected or failed (why is on standard error), 2 wrong usage, 130 Ctrl-C"
    ),
)
@click.option(
    "--api",
    type=ApiPath(),
    metavar="PATH",
    help="The daemon's socket; accepted after the command, too.  [default: $SNATGW_API, "
    "else /run/snatgw/api.sock]",
)
@click.version_option(__version__, prog_name="snatgw")
def group(api: str | None) -> None:
    """A userspace SNAT gateway that behaves like Azure's outbound path."""


def main() -> None:
    """The program's entry point."""
    group(prog_name="snatgw")
