"""How ports are consumed, refused and released (docs/fidelity.md A1 to A5, A7, A11)."""

from tests.scenario import Scenario
from tests.unit.core.snat.test_outbound_methods import NETWORK


def fill(scenario: Scenario, count: int, remote: str = "198.51.100.1:443") -> None:
    """``count`` TCP flows of vm1 toward one remote."""
    for number in range(count):
        scenario.play(f"vm1 sends tcp 10.0.1.4:{10000 + number} > {remote} syn")
        assert scenario.verdict is not None


def test_flows_to_one_address_take_a_port_each_whatever_their_port_there() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40002 > 198.51.100.1:80 syn
        outside sees   tcp 203.0.113.10:1026 > 198.51.100.1:80 syn
        ports          vm1 203.0.113.10 Tcp allocated=1024 used=3 free=1021 high_water=3
    """)


def test_other_addresses_reuse_the_same_ports() -> None:
    scenario = Scenario(NETWORK)
    for host in range(1, 255):
        scenario.play(f"""
            vm1 sends     tcp 10.0.1.4:{40000 + host} > 192.0.2.{host}:443 syn
            outside sees  tcp 203.0.113.10:1024 > 192.0.2.{host}:443 syn
        """)
    scenario.play("ports vm1 203.0.113.10 Tcp used=1 high_water=1")


def test_tcp_and_udp_have_separate_inventories() -> None:
    scenario = Scenario(NETWORK)
    fill(scenario, 1024)
    scenario.play("""
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:443
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:443
    """)


def test_the_lowest_free_port_is_taken() -> None:
    scenario = Scenario(NETWORK)
    fill(scenario, 5)
    scenario.play("""
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1027 rst
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:10003 rst
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1025 rst
        after          15.5 s
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:20001 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1027 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:20002 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1029 > 198.51.100.1:443 syn
    """)


def test_a_udp_endpoint_keeps_its_port_toward_other_destinations() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:53
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:53
        vm1 sends      udp 10.0.1.4:6000 > 198.51.100.1:53
        outside sees   udp 203.0.113.10:1025 > 198.51.100.1:53
        vm1 sends      udp 10.0.1.4:6000 > 198.51.100.2:53     # the lowest free is 1024
        outside sees   udp 203.0.113.10:1025 > 198.51.100.2:53
        vm1 sends      udp 10.0.1.4:6000 > 198.51.100.1:123    # held toward this address
        outside sees   udp 203.0.113.10:1026 > 198.51.100.1:123
    """)


def test_udp_filtering_is_port_restricted() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:53
        outside sends  udp 198.51.100.1:53 > 203.0.113.10:1024
        vm1 sees       udp 198.51.100.1:53 > 10.0.1.4:5000
        outside sends  udp 198.51.100.1:54 > 203.0.113.10:1024
        dropped        InboundWithoutFlow
        outside sends  udp 198.51.100.2:53 > 203.0.113.10:1024
        dropped        InboundWithoutFlow
    """)


def test_exhausted_a_new_flow_is_dropped_and_all_else_goes_on() -> None:
    scenario = Scenario(NETWORK)
    fill(scenario, 1024)
    scenario.play(
        """
        events         none
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        dropped        PortsExhausted
        event          PortsExhausted vm=vm1 public_ip=203.0.113.10 protocol=Tcp \
remote_ip=198.51.100.1 remote_port=443 count=1
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:80 syn     # another port: same address
        dropped        PortsExhausted
        vm1 sends      tcp 10.0.1.4:20001 > 198.51.100.2:443 syn    # another address
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.2:443 syn
        vm4 sends      tcp 10.0.1.7:20000 > 198.51.100.1:443 syn    # another VM
        outside sees   tcp 203.0.113.10:2048 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:10000 > 198.51.100.1:443 ack    # a live flow
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 ack
        ports          vm1 203.0.113.10 Tcp used=1024 free=0 failed=2
    """
    )


def test_exhaustion_is_reported_once_a_minute_with_a_count() -> None:
    scenario = Scenario(NETWORK)
    fill(scenario, 1024)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        event          PortsExhausted count=1
    """)
    for _ in range(7):
        scenario.play("""
            vm1 sends  tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
            dropped    PortsExhausted
            after      1 s
        """)
    scenario.play("""
        events         none
        after          53 s
        event          PortsExhausted count=7
        after          60 s
        events         none
    """)


def test_a_retransmission_succeeds_as_soon_as_a_port_is_released() -> None:
    scenario = Scenario(NETWORK)
    fill(scenario, 1024)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        dropped        PortsExhausted
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1500 rst ack
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        dropped        PortsExhausted
        after          15.25 s
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1500 > 198.51.100.1:443 syn
    """)


OPEN = """
    vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
    outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
    vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
    flows          vm1 state=Established
"""


def test_an_rst_from_either_side_holds_the_port_for_15_seconds() -> None:
    for reset in (
        "vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:443 rst",
        "outside sends tcp 198.51.100.1:443 > 203.0.113.10:1024 rst",
    ):
        Scenario(NETWORK).play(
            OPEN
            + f"""
            {reset}
            flows      vm1 state=CoolDown expires_in=15
            ports      vm1 203.0.113.10 Tcp used=1 cooling=1
            after      14 s
            outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack    # late, but passes
            vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 ack
            flows      vm1 state=CoolDown expires_in=1
            after      1.25 s
            flows      vm1 none
            ports      vm1 203.0.113.10 Tcp used=0 cooling=0
            """
        )


def test_a_first_fin_from_either_side_holds_the_port_for_240_seconds() -> None:
    for fin, state in (
        ("vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack", "Closing"),
        ("outside sends tcp 198.51.100.1:443 > 203.0.113.10:1024 fin ack", "Closing"),
    ):
        Scenario(NETWORK).play(
            OPEN
            + f"""
            after      100 s
            {fin}
            flows      vm1 state={state} expires_in=240
            after      100 s
            vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 ack    # 240 s after the LAST packet
            flows      vm1 state={state} expires_in=240
            after      239.9 s
            flows      vm1 state={state}
            after      0.5 s
            flows      vm1 none
            """
        )


def test_after_both_fins_the_port_cools_down() -> None:
    Scenario(NETWORK).play(
        OPEN
        + """
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack    # retransmitted
        flows          vm1 state=Closing
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 fin ack
        flows          vm1 state=CoolDown expires_in=240
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 ack
        ports          vm1 203.0.113.10 Tcp used=1 cooling=1
        after          241 s
        ports          vm1 203.0.113.10 Tcp used=0 cooling=0
        """
    )


def test_a_new_connection_from_the_same_endpoint_takes_another_port() -> None:
    Scenario(NETWORK).play(
        OPEN
        + """
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 rst
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1025 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
        ports          vm1 203.0.113.10 Tcp used=2 cooling=1
        after          16 s
        ports          vm1 203.0.113.10 Tcp used=1 cooling=0
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 ack
        after          241 s
        ports          vm1 203.0.113.10 Tcp used=0 cooling=0
        flows          vm1 none
        """
    )


def test_an_idle_flow_is_reclaimed_after_four_minutes_and_its_port_at_once() -> None:
    Scenario(NETWORK).play(
        OPEN
        + """
        after          200 s
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack    # one side refreshes
        after          239 s
        flows          vm1 state=Established expires_in=1
        after          1.25 s
        flows          vm1 none
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        dropped        TcpWithoutFlow
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack
        dropped        InboundWithoutFlow
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        """
    )


def test_a_half_open_flow_and_udp_have_the_idle_timeout() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.9:53
        flows          vm1 198.51.100.1 state=Opening expires_in=240
        flows          vm1 198.51.100.9 state=Opening expires_in=240
        after          100 s
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn       # retransmitted
        flows          vm1 198.51.100.1 state=Opening expires_in=240
        outside sends  udp 198.51.100.9:53 > 203.0.113.10:1024
        flows          vm1 198.51.100.9 state=Established
        after          240.5 s
        flows          vm1 none
        ports          vm1 203.0.113.10 Udp used=0
    """)


def test_a_refused_connection_cools_down_after_its_rst() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 rst ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 ack rst
        flows          vm1 state=CoolDown expires_in=15
    """)


def test_tcp_without_a_flow_that_is_no_syn_is_dropped() -> None:
    scenario = Scenario(NETWORK)
    for flags in ("ack", "syn ack", "fin ack", "rst", "syn fin", "syn rst", ""):
        scenario.play(f"""
            vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 {flags}
            dropped    TcpWithoutFlow
        """)
    scenario.play("""
        vm3 sends      tcp 10.0.1.6:40000 > 198.51.100.1:443 ack     # ILPIP: the same
        dropped        TcpWithoutFlow
        flows          vm1 none
    """)


def test_inbound_without_a_flow_is_dropped() -> None:
    Scenario(NETWORK).play("""
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn
        dropped        InboundWithoutFlow
        outside sends  udp 198.51.100.1:443 > 203.0.113.20:80
        dropped        InboundWithoutFlow
        outside sends  tcp 198.51.100.1:443 > 203.0.113.30:22 ack
        dropped        TcpWithoutFlow
        outside sends  tcp 198.51.100.1:443 > 203.0.113.99:22 syn
        dropped        PublicAddressUnknown
    """)


def test_an_ended_flow_of_an_instance_level_public_ip_holds_no_port() -> None:
    Scenario(NETWORK).play("""
        vm3 sends      tcp 10.0.1.6:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.30:40000 rst ack
        flows          vm3 state=Closed
        vm3 sends      tcp 10.0.1.6:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:40000 > 198.51.100.1:443 syn
        flows          vm3 state=Opening
    """)


def test_an_instance_level_public_ip_has_arms_idle_timeout() -> None:
    yaml = NETWORK.replace(
        "ipAddress: 203.0.113.30", "ipAddress: 203.0.113.30, idleTimeoutInMinutes: 10"
    )
    Scenario(yaml).play("""
        vm3 sends      udp 10.0.1.6:40000 > 198.51.100.1:443
        flows          vm3 expires_in=600
        after          599 s
        flows          vm3 state=Opening
        after          2 s
        flows          vm3 none
    """)


def test_the_flow_table_is_bounded() -> None:
    scenario = Scenario(NETWORK.replace("outside: wan0", "outside: wan0, maximumFlows: 10"))
    fill(scenario, 10)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.2:443 syn
        dropped        FlowTableFull
        event          FlowTableFull count=1
        vm1 sends      tcp 10.0.1.4:10000 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 ack
        after          241 s
        vm1 sends      tcp 10.0.1.4:20000 > 198.51.100.2:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.2:443 syn
    """)


def test_strangers_cannot_take_more_than_the_default_addresses_have() -> None:
    yaml = NETWORK.replace("addressPrefix: 10.0.1.0/24", "addressPrefix: 10.0.0.0/16")
    scenario = Scenario(yaml)
    for number in range(60):  # 62 allocations of 1,024 in 64,000; vm1 and vm4 have two
        scenario.play(f"10.0.2.{number} sends udp 10.0.2.{number}:5 > 198.51.100.1:53")
        assert scenario.verdict is not None
    scenario.play(
        """
        10.0.3.1 sends udp 10.0.3.1:5 > 198.51.100.1:53
        dropped        DefaultOutboundCapacity
        after          241 s
        10.0.3.1 sends udp 10.0.3.1:5 > 198.51.100.1:53
        outside sees   udp 203.0.113.10:2048 > 198.51.100.1:53
    """.replace("203.0.113.10:2048", "203.0.113.10:3072")
    )


def test_a_syn_on_a_half_closed_flow_is_a_new_connection() -> None:
    # The remote died after our FIN, and the VM uses its port again.
    Scenario(NETWORK).play(
        OPEN
        + """
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1025 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
        ports          vm1 203.0.113.10 Tcp used=2
        after          500 s
        ports          vm1 203.0.113.10 Tcp used=0 cooling=0
        """
    )
