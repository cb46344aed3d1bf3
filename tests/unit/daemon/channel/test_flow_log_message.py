"""What goes to the API process for the flow logs: all that was logged, as plain values."""

from __future__ import annotations

import marshal

from gateway.daemon.channel.flow_log_message import message
from tests.scenario import Scenario
from tests.unit.core.snat.test_outbound_methods import NETWORK


def test_entries_are_plain_values_behind_the_two_clocks() -> None:
    run = Scenario(NETWORK.replace("outside: wan0", "outside: wan0, flowLogs: vnet"))
    run.play("vm1 sends udp 10.0.1.4:5000 > 198.51.100.1:53")
    log = run.engine.flow_log
    assert log is not None
    entries = log.take(10)
    assert entries
    sent = message("vnet", 5.0, 1000.0, 60.0, entries)
    assert sent == ("vnet", 5.0, 1000.0, 60.0, [tuple(entry) for entry in entries])
    assert marshal.loads(marshal.dumps(sent)) == sent
