"""What a reload says about network security groups."""

from gateway.core.reload.security_changes import security_changes
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load_text
from tests.scenario import sentences
from tests.unit.core.policy.test_nsg import NO_SMTP, WEB, network


def configuration(text: str) -> Configuration:
    loaded = load_text(text, "gateway.yaml")
    assert loaded.configuration is not None, loaded.problems
    return loaded.configuration


def changes(before: str, after: str) -> list[str]:
    return sentences(security_changes(configuration(before), configuration(after)))


def test_the_same_is_no_change() -> None:
    assert changes(network(NO_SMTP), network(NO_SMTP)) == []


def test_rules_that_come_go_and_change() -> None:
    closed = NO_SMTP.replace("'25'", "'587'")
    assert changes(network(NO_SMTP + WEB), network(closed, WEB, flush=True)) == [
        "network security group subnet-nsg: rule no-smtp changed",
        "network security group subnet-nsg: rule web removed",
        "network security group subnet-nsg: flushConnection true",
        "network security group nic-nsg: rule web added",
        "network security group nic-nsg: flushConnection true",
    ]


def test_groups_and_where_they_stand() -> None:
    before = network()
    moved = before.replace("10.0.2.0/24}", "10.0.2.0/24, networkSecurityGroup: more}")
    moved = moved.replace(", networkSecurityGroup: nic-nsg", "")
    moved += "  - {name: more, securityRules: []}\n"
    assert changes(before, moved) == [
        "network security group more added: 0 rules besides the default ones",
        "network security group of subnet data: none -> more",
        "network security group of vm2's interface: nic-nsg -> none",
    ]
    assert "network security group more removed" in changes(moved, before)
