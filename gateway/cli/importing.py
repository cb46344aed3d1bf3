"""``snatgw import``: Azure's JSON to a configuration on standard output."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Failure, examples, json_option

if TYPE_CHECKING:
    from gateway.importing import Parameters


def _interfaces(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    names = [name.strip() for value in values for name in value.split(",")]
    if "" in names:
        raise click.BadParameter("an item of the list is empty", ctx, param)
    return names


def _addresses(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[IPv4Address]:
    addresses = []
    for text in _interfaces(ctx, param, values):
        try:
            addresses.append(IPv4Address(text))
        except AddressValueError:
            raise click.BadParameter(f"{text} is not an IPv4 address", ctx, param) from None
    return addresses


def _assignments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    assigned = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{text} is not NAME=VALUE", ctx, param)
        assigned[name.strip()] = value
    return assigned


@click.command(
    "import",
    epilog=examples(
        "snatgw import template.json --parameters template.parameters.json > gateway.yaml",
        "snatgw import template.json --parameter vmName=web --inside lan0 --outside wan0",
        "az network nsg list -g lab -o json | snatgw import - > groups.yaml",
        "snatgw import vnet.json nics.json pips.json lb.json nsgs.json > gateway.yaml "
        "&& snatgw check -c gateway.yaml",
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--parameters",
    "parameter_files",
    multiple=True,
    metavar="FILE",
    help="Values for a template's parameters, in ARM's parameters file format.",
)
@click.option(
    "--parameter",
    "assigned",
    multiple=True,
    callback=_assignments,
    metavar="NAME=VALUE",
    help="A value for one; lists and mappings as JSON. Counts before --parameters.",
)
@click.option(
    "--inside",
    multiple=True,
    default=("lan0",),
    callback=_interfaces,
    metavar="IF[,IF]",
    help="Interfaces toward the VMs.  [default: lan0]",
)
@click.option(
    "--outside", default="wan0", metavar="IF", help="Toward the internet.  [default: wan0]"
)
@click.option(
    "--default-outbound",
    multiple=True,
    callback=_addresses,
    metavar="IP[,IP]",
    help="The public IPs behind VMs without an outbound method of their own.  [default: none]",
)
@json_option("the configuration as one JSON object")
def import_(
    files: tuple[str, ...],
    parameter_files: tuple[str, ...],
    assigned: dict[str, str],
    inside: list[str],
    outside: str,
    default_outbound: list[IPv4Address],
    as_json: bool,
) -> None:
    """Make a configuration of Azure's JSON.

    Each FILE is an ARM template, or the output of az network vnet, nsg, asg, nic, public-ip, lb or
    nat gateway list or show (and az vm) with -o json; "-" is standard input. All of them become one
    configuration on standard output.

    What cannot be carried over is named on standard error, a line each, and so is what had to be
    chosen, and what snatgw check will say of the result. Exit 1: nothing was imported.
    """
    from gateway.importing import NothingImportedError, Settings, import_files

    parameters = _parameters(parameter_files, assigned)
    settings = Settings(inside, outside, default_outbound)
    try:
        imported = import_files(files, parameters, settings)
    except NothingImportedError as error:
        raise Failure(error.lines) from None
    for line in imported.notes:
        click.echo(line, err=True)
    for problem in imported.problems():
        click.echo(f"check will say: {problem}", err=True)
    click.echo(imported.to_json() if as_json else imported.to_yaml(), nl=as_json)


def _parameters(names: tuple[str, ...], assigned: dict[str, str]) -> Parameters:
    from gateway.importing import InputError, Parameters, read_parameters

    values: dict[str, object] = {}
    refusals: list[str] = []
    for name in names:
        try:
            values |= read_parameters(name)
        except InputError as error:
            refusals.append(str(error))
    if refusals:
        raise Failure(refusals)
    return Parameters(values, assigned)
