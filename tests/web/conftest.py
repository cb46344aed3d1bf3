"""One gateway with a dashboard, some traffic and one browser, for tests that leave them as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually
from tests.web.browser import Visit, chromium

HTTP = "127.0.0.1:8480"
URL = f"http://{HTTP}/"


def pytest_configure() -> None:
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/web needs root: sudo scripts/test")


def guarded(gateway: Gateway) -> Gateway:
    """With a security group on the subnet: no SMTP."""
    document = gateway.configuration
    document["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "web-nsg"
    rule = {
        "name": "no-smtp", "priority": 100, "direction": "Outbound", "access": "Deny", "protocol": "Tcp",
        "sourceAddressPrefix": "*", "sourcePortRange": "*",
        "destinationAddressPrefix": "Internet", "destinationPortRange": "25",
    }  # fmt: skip
    document["networkSecurityGroups"] = [{"name": "web-nsg", "securityRules": [rule]}]
    return gateway


@pytest.fixture(scope="package")  # its event loop must be gone before others' tests run
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="package")
def town() -> Iterator[Gateway]:
    """The usual gateway, with a dashboard and a security group, and flows of each VM."""
    with Topology() as net:
        gateway = guarded(Gateway(net, http=HTTP))
        gateway.configuration["virtualMachines"].append(
            {"name": "idle", "privateIPAddress": "10.0.1.20"}
        )
        pool = gateway.configuration["loadBalancers"][0]["backendAddressPools"][0]
        pool["virtualMachines"] = ["vm2", "idle"]
        gateway.start()
        vm1, vm2, vm3 = (net.client(vm) for vm in ("vm1", "vm2", "vm3"))
        for client, count, server in ((vm1, 30, SERVER), (vm2, 12, SERVER2), (vm3, 3, SERVER)):
            client.open(count, server)
            eventually(client.connections, lambda seen, count=count: seen["connected"] == count)  # type: ignore[misc]
        vm2.open(1, SERVER, port=25)
        yield gateway
        assert gateway.losses() == {}
        assert gateway.stop() == 0


@pytest.fixture(scope="package")
def browser(playwright: Playwright, town: Gateway) -> Iterator[Browser]:
    with chromium(playwright, town.net) as browser:
        yield browser


@pytest.fixture
def visit(town: Gateway, browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Visits the shared gateway; each visit must end without a complaint or a foreign request."""
    visits: list[Visit] = []
    for vm in ("vm1", "vm2", "vm3"):  # or their flows would be idle for too long
        town.net.client(vm).talk()

    def begin(url: str = URL, **context: Any) -> Visit:
        visits.append(Visit(browser, url, **context))
        return visits[-1]

    yield begin
    for each in visits:
        each.close()
        assert each.complaints == []
        assert [url for url in each.requests if not url.startswith(URL)] == []


@pytest.fixture
def fresh() -> Iterator[Topology]:
    """A topology without a gateway."""
    with Topology() as net:
        yield net
