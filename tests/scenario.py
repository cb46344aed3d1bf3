"""A small language for engine tests: a VM sends, the wire shows, the clock moves, one asks.

    vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
    outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
    outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 rst
    vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 rst
    after          15 s
    outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack
    dropped        InboundWithoutFlow
    ports          vm1 203.0.113.10 Tcp used=0 free=1024
    flows          vm1 none

Lines:

``WHO sends PACKET``   ``WHO`` is a VM, ``outside``, ``gateway`` (an ICMP error of this host), or
                       ``host`` (this host's programs). The host itself is 203.0.113.1 outside, and
                       has another network, 192.168.50.0/24.
``WHO sees PACKET``    what became of the packet just sent, exactly; all its checksums are verified
                       with scapy's own computation.
``dropped REASON``     the packet just sent was refused for this reason.
``after N s|min``      the clock moves, and expired flows are reclaimed.
``probe LB/PROBE VM up|down``  a backend's health is this from now on; flows that may not outlive a
                       backend's going down end.
``ports VM IP PROTO KEY=VALUE...``    of the port record.
``flows VM [REMOTE] KEY=VALUE...|none``  of the one flow that matches, or of none.
``event NAME KEY=VALUE...``           one such event came since the last ``event`` or ``events``.
``events none``                       nothing did.

Packets: ``tcp|udp A:P > B:P [flags] [len=N]``, ``echo|echo-reply A > B id=N``, ``ip proto=N A > B``,
``icmp T/C A > B about PACKET``, and ``options`` among the flags of any of them. TCP is sent with
``seq=N`` and ``acks=N``; without them (0) the gateway knows no numbers, and checks none.

A run that goes wrong prints the whole script as it went, with what was expected and seen.
"""

from __future__ import annotations

import re
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP, TCPerror, UDPerror
from scapy.packet import Packet, Raw

from gateway.core.engine import Engine
from gateway.core.inbound.load_balancer import Target
from gateway.core.ingress import Arrival
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load_text

HOST, OTHER_NETWORK = "203.0.113.1", "192.168.50."
FLAGS = {"syn": "S", "ack": "A", "fin": "F", "rst": "R"}


def configuration(text: str) -> Configuration:
    """A configuration from YAML text; its problems fail the test."""
    loaded = load_text(text, "scenario.yaml")
    errors = [str(p) for p in loaded.problems if p.severity == "error"]
    assert not errors, "\n".join(errors)
    assert loaded.configuration is not None
    return loaded.configuration


def build(text: str) -> bytes:
    """The bytes of a packet in the language above."""
    return bytes(_scapy(text))


def _scapy(text: str) -> Packet:
    if " about " in text:
        outer, inner = text.split(" about ", 1)
        match = re.fullmatch(r"icmp (\d+)/(\d+) (\S+) > (\S+)((?: \S+)*)", outer)
        assert match, f"cannot read {text!r}"
        kind, code, source, destination, rest = match.groups()
        quoted = bytes(_scapy(inner))
        if "short" in rest.split():
            quoted = quoted[:28]  # as RFC 792 allows: the IP header and eight bytes
        return IP(src=source, dst=destination) / ICMP(type=int(kind), code=int(code)) / Raw(quoted)
    kind, rest = text.split(" ", 1)
    words = rest.split()
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    source, arrow, destination = [word for word in words if "=" not in word][:3]
    assert arrow == ">", f"cannot read {text!r}"
    marks = {word for word in words if "=" not in word}
    options = [IPOption_NOP()] * 4 if "options" in marks else []
    payload = Raw(b"x" * int(settings.get("len", 0)))
    host, port = _endpoint(source)
    peer, peer_port = _endpoint(destination)
    ip = IP(src=host, dst=peer, options=options, ttl=int(settings.get("ttl", 64)))
    if kind == "tcp":
        flags = "".join(letter for name, letter in FLAGS.items() if name in marks)
        numbers = {"seq": int(settings.get("seq", 0)), "ack": int(settings.get("acks", 0))}
        return ip / TCP(sport=port, dport=peer_port, flags=flags, **numbers) / payload
    if kind == "udp":
        checksum = {"chksum": 0} if "unsummed" in marks else {}
        return ip / UDP(sport=port, dport=peer_port, **checksum) / payload
    if kind in ("echo", "echo-reply"):
        number = 8 if kind == "echo" else 0
        return ip / ICMP(type=number, id=int(settings["id"]), seq=1) / payload
    assert kind == "ip", f"cannot read {text!r}"
    ip.proto = int(settings["proto"])
    return ip / Raw(b"payload!" * 4)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port or 0)


def describe(packet: bytes) -> str:
    """A packet in the language above."""
    return _describe(IP(packet))


def _describe(ip: Packet) -> str:
    mark = " options" if ip.ihl and ip.ihl > 5 else ""
    for layer, name in ((TCP, "tcp"), (UDP, "udp"), (TCPerror, "tcp"), (UDPerror, "udp")):
        if not isinstance(ip.payload, layer):
            continue
        l4 = ip.payload
        flags = ""
        if name == "tcp" and l4.flags is not None:
            present = str(l4.flags)
            flags = "".join(f" {word}" for word, letter in FLAGS.items() if letter in present)
        size = len(bytes(l4.payload))
        unsummed = " unsummed" if name == "udp" and l4.chksum == 0 else ""
        return (
            f"{name} {ip.src}:{l4.sport} > {ip.dst}:{l4.dport}{flags}{unsummed}"
            + (f" len={size}" if size else "")
            + mark
        )
    if ip.proto == 1 and isinstance(ip.payload, ICMP):
        icmp = ip.payload
        if icmp.type in (0, 8):
            size = len(bytes(icmp.payload))
            name = "echo" if icmp.type == 8 else "echo-reply"
            return f"{name} {ip.src} > {ip.dst} id={icmp.id}" + (f" len={size}" if size else "")
        if isinstance(icmp.payload, IPerror):
            inner = IP(bytes(icmp.payload))
            short = " short" if len(bytes(inner.payload)) == 8 and inner.proto == 6 else ""
            quoted = _describe(inner) if not short else _short(inner)
            return f"icmp {icmp.type}/{icmp.code} {ip.src} > {ip.dst}{short} about {quoted}{mark}"
    return f"ip {ip.src} > {ip.dst} proto={ip.proto}{mark}"


def _short(inner: Packet) -> str:
    ports = bytes(inner.payload)
    sport, dport = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:4], "big")
    return f"tcp {inner.src}:{sport} > {inner.dst}:{dport}"


def wrong_checksums(packet: bytes) -> list[str]:
    """The checksums of a packet that differ from what scapy computes for it."""
    ip = IP(packet)
    wrong = []
    fresh = IP(packet)
    for layer in (IP, TCP, UDP, ICMP):
        if layer in fresh and not (layer is UDP and fresh[UDP].chksum == 0):
            del fresh[layer].chksum
    computed = IP(bytes(fresh))
    for layer in (IP, TCP, UDP, ICMP):
        if layer in ip and ip[layer].chksum != computed[layer].chksum:
            wrong.append(
                f"{layer.__name__} checksum {ip[layer].chksum:#06x}, "
                f"scapy computes {computed[layer].chksum:#06x}"
            )
    if ICMP in ip and isinstance(ip[ICMP].payload, IPerror):
        quoted = bytes(ip[ICMP].payload)
        inner = IP(quoted)
        if inner.len is not None and inner.len == len(quoted):  # whole: all of it can be verified
            wrong += [f"quoted {problem}" for problem in wrong_checksums(quoted)]
        else:
            header = IP(quoted[: (inner.ihl or 5) * 4])
            del header.chksum
            if IP(bytes(header)).chksum != inner.chksum:
                wrong.append("quoted IP checksum")
    return wrong


class Scenario:
    """An engine with a clock, played with the language above."""

    def __init__(
        self,
        yaml: str,
        *,
        seed: int = 1,
        loaded: Configuration | None = None,
        probed: bool = False,
    ) -> None:
        self.configuration = loaded or configuration(yaml)
        self.engine = Engine(self.configuration, seed=seed, probed=probed)
        self.now = 0.0
        self.sent = b""
        self.verdict: bytes | None = None
        self._events: list[Any] = []
        self._drops: dict[str, int] = {}
        self._trace: list[str] = []

    @property
    def public_ips(self) -> set[str]:
        return {str(p.ip_address) for p in self.engine.configuration.public_ip_addresses}

    @property
    def events(self) -> list[Any]:
        """What happened since a script asked for it."""
        return list(self._events)

    def play(self, script: str) -> None:
        """Play a script; AssertionError with the trace at the first line that does not hold."""
        for line in script.strip().splitlines():
            text = " ".join(line.split("#")[0].split())
            if not text:
                continue
            wrong = self._step(text)
            self._trace.append(("!  " if wrong else "   ") + text)
            if wrong:
                self._trace.append(wrong)
                raise AssertionError("\n" + "\n".join(self._trace))

    def send(self, who: str, packet: bytes, *, lateral: bool = False) -> bytes | None:
        """Hand one packet to the engine, by the way in that its sender and destination make."""
        destination = ".".join(map(str, packet[16:20]))
        if lateral:
            arrival = Arrival.LATERAL
        elif who == "outside":
            arrival = Arrival.INBOUND
        elif who == "gateway":
            arrival = Arrival.LOCAL_ERROR
        elif who == "host":
            arrival = Arrival.PROBE
        elif destination.startswith(OTHER_NETWORK):
            arrival = Arrival.LATERAL
        elif destination in self.public_ips or destination == HOST:
            arrival = Arrival.HAIRPIN
        else:
            arrival = Arrival.OUTBOUND
        self._drops = dict(self.engine.status(self.now)["drops"])
        self.sent = packet
        self.verdict = self.engine.handle(packet, arrival, self.now)
        self._events += self.engine.take_events()
        return self.verdict

    def reconfigure(self, yaml: str) -> list[str]:
        """Reload with another configuration; returns the changes."""
        changes = self.engine.reconfigure(configuration(yaml), self.now)
        self._events += self.engine.take_events()
        self._trace.append("   (reconfigured) " + "; ".join(changes))
        return changes

    def _probe(self, probe: str, vm: str, health: str) -> None:
        target = Target(*probe.split("/"), vm)
        assert target in self.engine.balancer.targets(), f"nothing probes {vm} by {probe}"
        if self.engine.health.report(target, health == "up", self.now):
            for _ in self.engine.health.settle():
                pass
        self._events += self.engine.take_events()

    def wait(self, seconds: float) -> None:
        """Move the clock and reclaim what expired."""
        self.now += seconds
        while self.engine.expire(self.now):
            pass
        self._events += self.engine.take_events()

    def ports(self, vm: str, public_ip: str, protocol: str) -> Any:
        """The port record of a VM on a public IP, None if there is none."""
        for record in self.engine.port_records(self.now):
            if record and (record.vm, record.public_ip, record.protocol) == (
                vm,
                public_ip,
                protocol,
            ):
                return record
        return None

    def flow_list(self, vm: str | None = None) -> list[Any]:
        """All flow records, of one VM if it is named."""
        records, following = self.engine.flow_records(0, 1 << 30, self.now)
        assert following is None
        return [record for record in records if vm is None or record.vm == vm]

    # -- the steps: each returns None, or what is wrong

    def _step(self, text: str) -> str | None:
        first, _, rest = text.partition(" ")
        verb, _, argument = rest.partition(" ")
        if verb == "sends":
            self.send(first, build(argument))
            return None
        if verb == "sees":
            return self._sees(argument)
        if first == "dropped":
            return self._dropped(rest)
        if first == "after":
            number, unit = rest.split()
            self.wait(float(number) * {"s": 1, "min": 60}[unit])
            return None
        if first == "probe":
            self._probe(*rest.split())
            return None
        asked = {
            "ports": self._ports,
            "flows": self._flows,
            "event": self._event,
            "events": self._no_events,
        }
        assert first in asked, f"cannot read {text!r}"
        return asked[first](rest.split())

    def _sees(self, expected: str) -> str | None:
        seen = "nothing: " + self.reason() if self.verdict is None else describe(self.verdict)
        if seen != expected:
            return f"   expected  {expected}\n   seen      {seen}"
        assert self.verdict is not None
        wrong = wrong_checksums(self.verdict)
        return f"   expected  valid checksums\n   seen      {', '.join(wrong)}" if wrong else None

    def _dropped(self, expected: str) -> str | None:
        seen = self.reason() if self.verdict is None else f"passed: {describe(self.verdict)}"
        if seen == expected:
            return None
        return f"   expected  dropped {expected}\n   seen      {seen}"

    def reason(self) -> str:
        """Why the packet just sent was dropped."""
        after = self.engine.status(self.now)["drops"]
        return ", ".join(n for n, count in after.items() if count != self._drops.get(n, 0))

    def _ports(self, words: list[str]) -> str | None:
        record = self.ports(*words[:3])
        return _compare("no such record" if record is None else record, words[3:])

    def _flows(self, words: list[str]) -> str | None:
        found = self.flow_list(words[0])
        wanted = words[1:]
        if wanted and "=" not in wanted[0] and wanted[0] != "none":
            remote, wanted = wanted[0], wanted[1:]
            found = [r for r in found if remote in (r.remote_ip, f"{r.remote_ip}:{r.remote_port}")]
        if wanted == ["none"]:
            return f"   expected  none\n   seen      {found}" if found else None
        if len(found) != 1:
            return f"   expected  one flow\n   seen      {found}"
        return _compare(found[0], wanted)

    def _event(self, words: list[str]) -> str | None:
        seen, self._events = self._events, []
        for event in seen:
            if type(event).__name__ == words[0] and _compare(event, words[1:]) is None:
                return None
        return f"   expected  event {' '.join(words)}\n   seen      {seen}"

    def _no_events(self, words: list[str]) -> str | None:
        assert words == ["none"]
        seen, self._events = self._events, []
        return f"   expected  no event\n   seen      {seen}" if seen else None


def _compare(record: Any, wanted: list[str]) -> str | None:
    """Whether a record has the values that ``key=value`` words ask for, as text."""
    for word in wanted:
        key, _, value = word.partition("=")
        seen = getattr(record, key, f"no {key} in {record}")
        seen = getattr(seen, "value", seen)
        if str(seen) != value and not (isinstance(seen, float) and f"{seen:g}" == value):
            return f"   expected  {key}={value}\n   seen      {record}"
    return None
