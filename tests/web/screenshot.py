"""``python -m tests.web.screenshot FILE``: the dashboard over five minutes of real traffic, as root.

A batch VM opens connections faster than it closes them until its 1,024 SNAT ports are gone, twice;
two web VMs behind a load balancer do what web VMs do; one of them tries SMTP, which a rule denies.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.netns.gateway import DEFAULT, FRONTENDS, Gateway
from tests.netns.topology import SERVER, SERVER2, SERVER3, Topology
from tests.web.browser import Visit, chromium
from tests.web.conftest import HTTP, URL, guarded

SECONDS = 225
SCALE = 5
NAMES = {"vm1": "batch-1", "vm2": "web-1", "vm3": "web-2"}


def configured(net: Topology) -> Gateway:
    gateway = guarded(Gateway(net, http=HTTP, timeScale=SCALE))
    document: dict[str, Any] = gateway.configuration
    for machine in document["virtualMachines"]:
        machine["name"] = NAMES[machine["name"]]
        machine.pop("publicIPAddress", None)
    document["publicIPAddresses"] = [
        p for p in document["publicIPAddresses"] if p["name"] != "pip-vm3"
    ]
    balancer = document["loadBalancers"][0]
    for part in ("frontendIPConfigurations", "loadBalancingRules"):
        del balancer[part][1]
    # a pool of more than 50 VMs: 512 ports for each
    others = {f"web-{n}": f"10.0.1.{n + 20}" for n in range(3, 61)}
    document["virtualMachines"] += [
        {"name": name, "privateIPAddress": address} for name, address in others.items()
    ]
    balancer["backendAddressPools"][0]["virtualMachines"] = ["web-1", "web-2", *others]
    return gateway


def work(net: Topology, seconds: float) -> None:
    """What the VMs do. The batch VM's connections rise and fall; the others keep a few."""
    batch, *webs = (net.client(vm) for vm in NAMES)
    ports = itertools.cycle((7, 37, 53))
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        held = batch.connections()["connected"]
        wanted = int(600 - 700 * math.cos(now / 22))
        if wanted > held:
            batch.open(min(wanted - held, 60), SERVER)
        elif held - wanted > 30:
            batch.reset(min(held - wanted, 120))
        for number, web in enumerate(webs):
            kept = web.connections()["connected"]
            level = int(170 + 150 * number + 60 * math.sin(now / (19 + 7 * number) + number))
            if level > kept:
                web.open(min(level - kept, 25), SERVER3)
            elif kept > level:
                web.reset(min(kept - level, 25))
            web.download(SERVER3, int(1.5e6 + 1e6 * math.sin(now / 11 + number)))
            web.upload(SERVER2, int(6e5 + 4e5 * math.cos(now / 17)))
            web.peer("Udp", SERVER)
        batch.talk(patience=0.5)
        if next(ports) == 7:
            webs[0].open(1, SERVER2, port=25)
        time.sleep(0.6)


def main(file: Path) -> None:
    with Topology() as net, sync_playwright() as playwright:
        gateway = configured(net)
        gateway.start()
        with chromium(playwright, net) as browser:
            visit = Visit(
                browser,
                URL,
                viewport={"width": 1440, "height": 1250},
                color_scheme="light",
                device_scale_factor=1,
            )
            visit.open()
            page = visit.page
            working = threading.Thread(target=work, args=(net, SECONDS))
            working.start()
            page.wait_for_timeout((SECONDS - 12) * 1000)
            page.screenshot(path=file)
            page.emulate_media(color_scheme="dark")
            page.wait_for_timeout(1500)
            page.screenshot(path=file.with_stem(f"{file.stem}-dark"))
            visit.close()
            working.join()
        print(f"{DEFAULT}, {', '.join(FRONTENDS)}: {visit.complaints or 'no complaint'}")
        gateway.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
