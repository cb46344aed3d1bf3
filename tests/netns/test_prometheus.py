"""Prometheus itself on a real gateway: our configuration, every alert rule, every dashboard panel."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.netns.current import attach, current
from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "snatgw.json"
METRIC = re.compile(r"\bsnatgw_\w+")
LISTEN = "127.0.0.1:9090"
WEB = "203.0.113.1:8480"  # no loopback address: a token is required
RULE = {
    "name": "no-smtp", "priority": 100, "direction": "Outbound", "access": "Deny",
    "protocol": "Tcp", "sourceAddressPrefix": "*", "sourcePortRange": "*",
    "destinationAddressPrefix": "*", "destinationPortRange": "25",
}  # fmt: skip


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def expressions() -> Iterator[tuple[str, str, set[str]]]:
    """Each panel's title, expression (for all VMs and public IPs), and labels in its legend."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "10s")
            text = text.replace("$vm", ".*").replace("$public_ip", ".*")
            named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
            yield panel["title"], text, named


def alerts() -> list[str]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def own_configuration(directory: Path, target: str, token: Path) -> Path:
    """The configuration that we ship, for this gateway, and ten times as fast."""
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert document["rule_files"] == ["alerts.yml"]
    document["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    document["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (job,) = document["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gateway:8480"]}]
    job["static_configs"] = [{"targets": [target]}]
    assert job["authorization"]["credentials_file"] == "/var/lib/snatgw/dashboard-token"
    job["authorization"]["credentials_file"] = str(token)
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_rules_are_right_and_fire_when_they_should() -> None:
    promtool("check", "rules", str(PROMETHEUS / "alerts.yml"))
    promtool("test", "rules", str(PROMETHEUS / "alerts_test.yml"))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {
        check["alertname"] for c in cases for check in c["alert_rule_test"] if check["exp_alerts"]
    }
    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}


def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text}
        for number, (_, text, _) in enumerate(expressions())
    ]
    assert len(rules) > 20
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_the_dashboard_can_be_imported_anywhere() -> None:
    document = dashboard()
    (source,) = [v for v in document["templating"]["list"] if v["type"] == "datasource"]
    assert source["query"] == "prometheus"
    uses = [
        item["datasource"]["uid"]
        for panel in document["panels"]
        for item in (panel, *panel.get("targets", ()))
        if "datasource" in item
    ]
    assert set(uses) == {"${datasource}"}
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)
    cells: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not own & cells, f"{panel['title']} covers another panel"
        assert max(x for x, _ in own) < 24
        cells |= own
    assert document.get("id") is None  # Grafana gives one


class Server:
    """Debian's Prometheus in the gateway's namespace."""

    def __init__(self, net: Topology, configuration: Path) -> None:
        self._net = net
        net.start(
            "gw", "prometheus", f"--config.file={configuration}",
            f"--storage.tsdb.path={net.directory / 'tsdb'}", f"--web.listen-address={LISTEN}",
            "--log.level=error",
        )  # fmt: skip

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://{LISTEN}/api/v1/{path}?{urlencode(query)}"
        text = self._net.run("gw", "curl", "-sS", "--max-time", "10", url, check=False)
        ready = text.startswith("{")  # "Service Unavailable" while it starts
        return json.loads(text)["data"] if ready else None

    def value(self, expression: str) -> list[Any]:
        answer = self.ask("query", query=expression)
        return [] if answer is None else list(answer["result"])

    def firing(self) -> set[str]:
        answer = self.ask("alerts") or {"alerts": []}
        return {a["labels"]["alertname"] for a in answer["alerts"] if a["state"] == "firing"}


def shows_every_panel(server: Server) -> None:
    """With data, and with the labels that legends name."""
    for title, text, named in expressions():
        series = eventually(lambda text=text: server.value(text))  # type: ignore[misc]
        for one in series:
            assert named <= set(one["metric"]), title


def values(server: Server, label: str, expression: str) -> set[str]:
    return {one["metric"][label] for one in server.value(expression)}


def test_prometheus_shows_every_panel_and_tells_of_exhaustion(fresh: Topology) -> None:
    gateway = Gateway(fresh, http=WEB)
    gateway.configuration["networkSecurityGroups"] = [{"name": "nsg", "securityRules": [RULE]}]
    gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "nsg"
    balancer = gateway.configuration["loadBalancers"][0]
    balancer["probes"] = [{"name": "p", "protocol": "Tcp", "port": 8080, "intervalInSeconds": 5}]
    for rule in balancer["loadBalancingRules"]:
        rule["probe"] = "p"  # nothing answers it
    gateway.start()
    token = gateway.state / "dashboard-token"
    file = own_configuration(fresh.directory, WEB, token)
    promtool("check", "config", str(file))
    server = Server(fresh, file)
    eventually(lambda: server.value('up{job="snatgw"} == 1'))
    assert server.firing() == set()

    vm1, vm2, vm3 = (fresh.client(vm) for vm in ("vm1", "vm2", "vm3"))
    vm1.open(1100, SERVER)
    vm2.keep_asking(SERVER2)
    vm3.keep_connecting(SERVER2)
    vm2.open(1, SERVER, 25)
    eventually(server.firing, lambda names: "SnatPortExhaustion" in names)
    (alert,) = [
        a
        for a in server.ask("alerts")["alerts"]
        if a["labels"]["alertname"] == "SnatPortExhaustion"
    ]
    assert (alert["labels"]["vm"], alert["labels"]["protocol"]) == ("vm1", "Tcp")

    names = set(server.ask("label/__name__/values"))
    for text in [text for _, text, _ in expressions()] + alerts():
        assert set(METRIC.findall(text)) <= names, text
    shows_every_panel(server)
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert label is not None
            assert server.ask(f"label/{label[2]}/values", **{"match[]": label[1]})
    (vm1_share,) = server.value('snatgw_snat_usage_ratio{vm="vm1",protocol="Tcp"}')
    assert float(vm1_share["value"][1]) == 1
    for client in (vm2, vm3):
        client.stop()
    assert gateway.stop() == 0
    eventually(lambda: server.value('up{job="snatgw"} == 0'))


def test_the_dashboard_shows_the_azure_of_today(fresh: Topology) -> None:
    """An outbound rule that is exhausted, then a NAT gateway, whose ports all VMs share."""
    gateway = current(fresh, http=WEB)
    gateway.configuration["networkSecurityGroups"] = [{"name": "nsg", "securityRules": [RULE]}]
    gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "nsg"
    balancer = gateway.configuration["loadBalancers"][0]
    balancer["probes"] = [{"name": "p", "protocol": "Tcp", "port": 8080, "intervalInSeconds": 5}]
    balancer["loadBalancingRules"][0]["probe"] = "p"  # nothing answers it
    gateway.start()
    file = own_configuration(fresh.directory, WEB, gateway.state / "dashboard-token")
    server = Server(fresh, file)
    eventually(lambda: server.value('up{job="snatgw"} == 1'))
    vm1, vm2, vm3 = (fresh.client(vm) for vm in ("vm1", "vm2", "vm3"))
    vm1.open(40, SERVER)  # of 16 ports
    vm2.open(3, SERVER)
    vm3.open(3, SERVER)
    eventually(server.firing, lambda names: "SnatPortExhaustion" in names)
    flows, ports = "sum by (method) (snatgw_flows) > 0", "snatgw_snat_used_ports > 0"
    today = {"OutboundRule", "LoadBalancer"}
    eventually(lambda: values(server, "method", flows), lambda m: m == {*today, "InstanceLevelPublicIP"})  # fmt: skip
    assert values(server, "method", ports) == today

    attach(gateway)
    gateway.write()
    gateway.reload()
    vm2.keep_asking(SERVER2)
    vm3.keep_connecting(SERVER2)
    vm2.open(1, SERVER, 25)
    eventually(lambda: values(server, "method", flows), lambda m: m == {*today, "InstanceLevelPublicIP", "NatGateway"})  # fmt: skip
    eventually(lambda: values(server, "vm", 'snatgw_snat_used_ports{method="NatGateway"} > 0'), lambda v: v >= {"vm2", "vm3"})  # fmt: skip
    assert values(server, "method", 'snatgw_snat_used_ports{awaiting_removal="true"}') == today
    shows_every_panel(server)
    for client in (vm2, vm3):
        client.stop()
    assert gateway.stop() == 0
