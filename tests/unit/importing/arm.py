"""Small resources in ARM's shape for the tests, and the importer run on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from gateway.command import group

ROOT = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network"


def identity(path: str) -> dict[str, str]:
    """``{"id": …}`` of a network resource."""
    return {"id": f"{ROOT}/{path}"}


def resource(kind: str, name: str, **properties: Any) -> dict[str, Any]:
    """As the REST API gives it."""
    return {
        **identity(f"{kind}/{name}"),
        "name": name,
        "type": f"Microsoft.Network/{kind}",
        "properties": properties,
    }


def network(name: str = "v", **subnets: str) -> dict[str, Any]:
    """A virtual network, and its subnets' prefixes by name."""
    return resource(
        "virtualNetworks",
        name,
        addressSpace={"addressPrefixes": ["10.0.0.0/16"]},
        subnets=[
            {"name": key, "properties": {"addressPrefix": prefix}}
            for key, prefix in (subnets or {"web": "10.0.1.0/24"}).items()
        ],
    )


def interface(name: str, address: str | None = None, **configuration: Any) -> dict[str, Any]:
    """A network interface in subnet web."""
    inner = {"subnet": identity("virtualNetworks/v/subnets/web"), **configuration}
    if address is not None:
        inner["privateIPAddress"] = address
    return resource(
        "networkInterfaces", name, ipConfigurations=[{"name": "main", "properties": inner}]
    )


def rule(name: str = "r", **changes: Any) -> dict[str, Any]:
    """A security rule; None removes a property."""
    good = {
        "priority": 100,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "80",
    }
    kept = {key: value for key, value in (good | changes).items() if value is not None}
    return {"name": name, "properties": kept}


def template(*resources: Any, **parts: Any) -> dict[str, Any]:
    """A deployment template."""
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    return {"$schema": schema, "contentVersion": "1.0.0.0", "resources": list(resources), **parts}


def run(directory: Path, document: object, *flags: str) -> Result:
    """``snatgw import`` of one file with this value, or this text or these bytes."""
    content = document if isinstance(document, str | bytes) else json.dumps(document)
    file = directory / "in.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CliRunner().invoke(group, ["import", str(file), *flags], prog_name="snatgw")


def imported(directory: Path, document: object, *flags: str) -> tuple[dict[str, Any], list[str]]:
    """The configuration as data, and the lines on standard error without the file's name."""
    result = run(directory, document, *flags)
    assert result.exit_code == 0, result.output
    assert result.exception is None
    data = yaml.safe_load(result.stdout)
    lines = result.stderr.replace(f"{directory}/in.json: ", "").splitlines()
    return data, [line for line in lines if not line.startswith("check will say")]
