"""azure-current: a Standard public IP is closed from outside without a group (fidelity.md N9)."""

import pytest

from tests.scenario import Scenario
from tests.unit.core.inbound.test_load_balancer import TO_VM1, TWO
from tests.unit.core.test_explain_inbound import inbound

CURRENT = (
    TWO.replace("wan0}", "wan0, profile: azure-current}")
    .replace("- name: lb\n", "- name: lb\n    sku: Standard\n")
    .replace("defaultOutboundAccess: {publicIPAddresses: [pip-d]}\n", "")
    .replace("  - {name: pip-d, ipAddress: 203.0.113.10}\n", "")
)
WAYS = (
    f"tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn",  # load balancing rule
    "tcp 198.51.100.1:40001 > 203.0.113.20:50001 syn",  # inbound NAT rule
    "tcp 198.51.100.1:40001 > 203.0.113.30:22 syn",  # a VM's own public IP
)
GROUP = """
networkSecurityGroups:
  - name: open
    securityRules:
      - {name: all, priority: 100, direction: Inbound, access: Allow, protocol: "*",
         sourceAddressPrefix: "*", sourcePortRange: "*", destinationAddressPrefix: "*",
         destinationPortRange: "*"}
"""
GROUPED = CURRENT.replace("10.0.1.0/24}]", "10.0.1.0/24, networkSecurityGroup: open}]") + GROUP


@pytest.mark.parametrize("packet", WAYS)
def test_without_a_group_a_standard_public_ip_is_closed_from_outside(packet: str) -> None:
    Scenario(CURRENT).play(f"""
        outside sends  {packet}
        dropped        ClosedWithoutSecurityGroup
    """)


def test_a_group_that_allows_opens_each_way_in() -> None:
    Scenario(GROUPED).play(f"""
        outside sends  {WAYS[0]}
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        outside sends  {WAYS[1]}
        vm1 sees       tcp 198.51.100.1:40001 > 10.0.1.4:22 syn
        outside sends  {WAYS[2]}
        vm3 sees       tcp 198.51.100.1:40001 > 10.0.1.6:22 syn
    """)


def test_replies_to_what_a_vm_began_need_no_group() -> None:
    Scenario(CURRENT).play("""
        vm3 sends      tcp 10.0.1.6:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.30:40000 syn ack
        vm3 sees       tcp 198.51.100.1:443 > 10.0.1.6:40000 syn ack
    """)


def test_a_basic_frontend_and_azure_2017_stay_open() -> None:
    for text in (TWO, CURRENT.replace("    sku: Standard\n", "")):
        Scenario(text).play(f"""
            outside sends  {WAYS[0]}
            vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        """)


def test_explain_says_why() -> None:
    document = inbound(Scenario(CURRENT), int(TO_VM1))
    assert document["verdict"] == "Drop"
    assert document["reason"].startswith("ClosedWithoutSecurityGroup: A Standard public IP is")
    assert document["backend"]["vm"] == "vm1"
    assert inbound(Scenario(GROUPED), int(TO_VM1))["verdict"] == "Allow"
