"""The kernel filters what is asked for again and again, where it can."""

from __future__ import annotations

import json

from tests.netns.datapath.conftest import Gateway
from tests.netns.datapath.topology import Namespaces

COUNTED = """
import json, socket
from gateway.datapath.host import netlink
from gateway.datapath.host import netlink_tables

received = []

class Counting(socket.socket):
    def recv(self, *arguments):
        data = super().recv(*arguments)
        received.append(len(data))
        return data

netlink.socket.socket = Counting
with netlink_tables.Tables() as asking:
    routes = asking.routes(217, 254)
print(json.dumps([len(routes), sum(received)]))
"""


def test_many_routes_of_others_do_not_come(net: Namespaces) -> None:
    Gateway(net)
    alone = json.loads(net.python("gw", COUNTED))
    for table in ("main", "100"):
        route = f"route add 100.%d.%d.0/24 via 203.0.113.2 proto 186 table {table}"
        lines = f"""awk 'BEGIN {{ for (n = 0; n < 2000; n++) printf "{route}\\n", n / 250, n % 250 }}'"""
        net.run("gw", "sh", "-c", f"{lines} | ip -batch -")
    assert json.loads(net.python("gw", COUNTED)) == alone
    assert alone[0] == 1


def test_a_table_that_is_not_there_has_none(net: Namespaces) -> None:
    code = (
        "from gateway.datapath.host.netlink_tables import Tables\nprint(Tables().routes(217, 4711))"
    )
    assert net.python("gw", code) == "[]\n"
