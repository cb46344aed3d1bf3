"""Options that several commands share, and how a command ends: exit status and messages.

A rejection or failure is ``Failure``: exit 1, one line per problem on standard error. Wrong usage
is click's: exit 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import IO, Any, TypeVar

import click

DEFAULT_API = "/run/snatgw/api.sock"
INTERRUPTED = 130

Function = TypeVar("Function", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Exit 1; each problem is a line."""

    exit_code = 1

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [" ".join(problem.split()) for problem in problems]
        super().__init__("\n".join(self.problems))

    def show(self, file: IO[Any] | None = None) -> None:
        """Each problem on a line of its own."""
        for problem in self.problems:
            click.echo(f"snatgw: {problem}", file=file, err=file is None)


class WrongUsage(Failure):
    """Exit 2: the daemon does not take what was asked, whatever it has to say."""

    exit_code = 2


class ApiPath(click.types.StringParamType):
    """A socket's path; not empty."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A path, which must not be empty."""
        if not value:
            self.fail("the path of the daemon's socket is empty", param, ctx)
        return str(value)


def api_option(function: Function) -> Function:
    """``--api``, as on the group; the command gets the path that counts as ``api``."""

    def resolve(ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
        above = ctx.find_root().params.get("api")
        return value or above or os.environ.get("SNATGW_API") or DEFAULT_API

    return click.option(
        "--api",
        type=ApiPath(),
        metavar="PATH",
        callback=resolve,
        help=f"The daemon's socket.  [default: $SNATGW_API, else {DEFAULT_API}]",
    )(function)


def json_option(what: str) -> Callable[[Function], Function]:
    """``--json``; ``what`` names what is printed, e.g. "one JSON object a flow"."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what}.")


def examples(*lines: str) -> str:
    """An epilog with examples."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
