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

``WHO sends PACKET``   from an address of ``WHO``'s own; anybody else's fails the test.
``WHO forges PACKET``  from an address that is not ``WHO``'s own.
``WHO sees PACKET``    what became of the packet just sent, exactly, and where it left: it is routed
                       by its destination. All its checksums are verified with scapy's own
                       computation.
``dropped REASON``     the packet just sent was dropped for this reason.
``after N s|min``      the clock moves, and expired flows are reclaimed.
``probe LB/PROBE VM up|down``  a backend's health is this from now on; flows that may not outlive a
                       backend's going down end.
``ports VM IP PROTO KEY=VALUE...``    of the port record.
``flows VM [REMOTE] KEY=VALUE...|none``  of the one flow that matches, or of none.
``event NAME KEY=VALUE...``           one such event came since the last ``event`` or ``events``.
``events none``                       nothing did.

``WHO`` is a VM by its name; a machine of the virtual network that the configuration does not name,
by its address; ``outside``; ``dmz``, this host's other network 192.168.50.0/24; ``host``, this
host's programs, which send to public IPs and to VMs; or ``gateway``, this host's kernel, which sends
ICMP. The host is 203.0.113.1 outside and 10.0.1.1 inside. ``packets.py`` has the packets' language.

A word that is not of the language ends the test (``Unreadable``) with its line and the words that
are known. A run that goes wrong prints the whole script as it went, with what was expected and seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Address
from typing import Any, get_args

from gateway.core.engine import Engine
from gateway.core.events import Event
from gateway.core.ingress import IngressPath
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load_text
from gateway.schema.drop_reasons import DropReason
from gateway.schema.records import FlowRecord, PortRecord
from tests.packets import (
    Unreadable,
    build,
    describe,
    one_of,
    readable_as_seen,
    whole,
    wrong_checksums,
)
from tests.parties import (
    DMZ,
    HOST,
    KERNEL,
    OTHER_NETWORK,
    OUTSIDE,
    PROGRAMS,
    Parties,
    destination_of,
    source_of,
)

__all__ = ["Scenario", "Unreadable", "build", "configuration", "describe", "wrong_checksums"]

PROTOCOLS = ("Tcp", "Udp", "Icmp")
EVENTS = {kind.__name__: kind for kind in get_args(Event)}
VERBS = ("sends", "forges", "sees")


def configuration(text: str) -> Configuration:
    """A configuration from YAML text; its problems fail the test."""
    loaded = load_text(text, "scenario.yaml")
    errors = [str(p) for p in loaded.problems if p.severity == "error"]
    assert not errors, "\n".join(errors)
    assert loaded.configuration is not None
    return loaded.configuration


def sentences(told: Iterable[str | None]) -> list[str]:
    """What is told, without the pauses."""
    return [sentence for sentence in told if sentence is not None]


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
        self.parties = Parties(self.configuration)
        self.now = 0.0
        self.sent = b""
        self.verdict: bytes | None = None
        self._events: list[Any] = []
        self._drops: dict[str, int] = {}
        self._trace: list[str] = []

    @property
    def events(self) -> list[Any]:
        """What happened since a script asked for it."""
        return list(self._events)

    def play(self, script: str) -> None:
        """Play a script; AssertionError with the trace at the first line that does not hold."""
        for number, line in enumerate(script.strip().splitlines(), 1):
            text = " ".join(line.split("#")[0].split())
            if not text:
                continue
            try:
                wrong = self._step(text)
            except Unreadable as error:
                raise Unreadable(f"line {number}, {text!r}: {error}") from error
            self._trace.append(("!  " if wrong else "   ") + text)
            if wrong:
                self._trace.append(wrong)
                raise AssertionError("\n" + "\n".join(self._trace))

    def send(
        self, who: str, packet: bytes, *, lateral: bool = False, forged: bool = False
    ) -> bytes | None:
        """Hand one packet to the engine, by the way in that its sender and destination make.

        ``lateral``: from one inside network to another. ``forged``: see ``WHO forges``.
        """
        wrong = self.parties.misplaced(who, packet, lateral=lateral, forged=forged)
        assert wrong is None, f"\n{wrong}"
        destination = destination_of(packet)
        if lateral:
            arrival = IngressPath.LATERAL
        elif who in (OUTSIDE, DMZ):
            arrival = IngressPath.INBOUND
        elif who == KERNEL:
            arrival = IngressPath.LOCAL_ERROR
        elif who == PROGRAMS:
            arrival = IngressPath.PROBE
        elif destination.startswith(OTHER_NETWORK):
            arrival = IngressPath.LATERAL
        elif destination in self.parties.public_ips or destination == HOST:
            arrival = IngressPath.HAIRPIN
        else:
            arrival = IngressPath.OUTBOUND
        self._drops = dict(self.engine.status(self.now)["drops"])
        self.sent = packet
        self.verdict = self.engine.handle(packet, arrival, self.now)
        self._events += self.engine.take_events()
        return self.verdict

    def send_between(self, packet: bytes) -> bytes | None:
        """Hand over a packet from one inside network to another.

        It is sent by whose address it has; if that is nobody's inside, a VM forges it.
        """
        who = self.parties.owner(source_of(packet))
        if who is not None and self.parties.is_machine(who):
            return self.send(who, packet, lateral=True)
        return self.send(self.parties.names[0], packet, lateral=True, forged=True)

    def reconfigure(self, yaml: str) -> list[str]:
        """Reload with another configuration; returns the changes."""
        changes = self.engine.reconfigure(configuration(yaml), self.now)
        self.parties.know(self.engine.configuration)
        self._events += self.engine.take_events()
        self._trace.append("   (reconfigured) " + "; ".join(changes))
        return changes

    def _probe(self, words: list[str]) -> None:
        if len(words) != 3:
            raise Unreadable("known: probe LB/PROBE VM up|down")
        probe, vm, health = words
        targets = {f"{t.balancer}/{t.probe} {t.vm}": t for t in self.engine.balancer.targets()}
        target = targets[one_of(f"{probe} {vm}", targets, "probe")]
        one_of(health, ("up", "down"), "health")
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
        slices = self.engine.flow_records(lambda: self.now, 1 << 30)
        return [record for records in slices for record in records if vm is None or record.vm == vm]

    # -- the steps: each returns None, or what is wrong

    def _step(self, text: str) -> str | None:
        first, _, rest = text.partition(" ")
        lines = {
            "dropped": self._dropped,
            "after": self._after,
            "probe": self._probe,
            "ports": self._ports,
            "flows": self._flows,
            "event": self._event,
            "events": self._no_events,
        }
        if first in lines:
            return lines[first](rest.split())
        verb, _, argument = rest.partition(" ")
        if verb not in VERBS and not self.parties.is_known(first):
            one_of(first, [*lines, *(f"WHO {verb}" for verb in VERBS)], "line")
        self.parties.check(first)
        one_of(verb, VERBS, "verb")
        if verb == "sees":
            return self._sees(first, argument)
        packet, forged = build(argument), verb == "forges"
        wrong = self.parties.misplaced(first, packet, lateral=False, forged=forged)
        if wrong is None:
            self.send(first, packet, forged=forged)
        return wrong

    def _after(self, words: list[str]) -> None:
        if len(words) != 2:
            raise Unreadable("known: after N s|min")
        units = {"s": 1, "min": 60}
        try:
            number = float(words[0])
        except ValueError:
            raise Unreadable(f"no number: {words[0]!r}; known: after N s|min") from None
        self.wait(number * units[one_of(words[1], units, "unit")])

    def _sees(self, who: str, expected: str) -> str | None:
        readable_as_seen(expected)
        if self.verdict is None:
            return f"   expected  {who}  {expected}\n   seen      nothing: {self.reason()}"
        seen = describe(self.verdict)
        by = self.parties.owner(destination_of(self.verdict)) or "nobody"
        if (by, seen) != (who, expected):
            width = max(len(who), len(by))
            return f"   expected  {who:{width}}  {expected}\n   seen      {by:{width}}  {seen}"
        wrong = wrong_checksums(self.verdict)
        return f"   expected  valid checksums\n   seen      {', '.join(wrong)}" if wrong else None

    def _dropped(self, words: list[str]) -> str | None:
        expected = " ".join(words)
        one_of(expected, [reason.value for reason in DropReason], "reason")
        seen = self.reason() if self.verdict is None else f"passed: {describe(self.verdict)}"
        if seen == expected:
            return None
        return f"   expected  dropped {expected}\n   seen      {seen}"

    def reason(self) -> str:
        """Why the packet just sent was dropped."""
        after = self.engine.status(self.now)["drops"]
        return ", ".join(n for n, count in after.items() if count != self._drops.get(n, 0))

    def _ports(self, words: list[str]) -> str | None:
        if len(words) < 4:
            raise Unreadable("known: ports VM IP PROTO KEY=VALUE...")
        vm, public_ip, protocol, *wanted = words
        self.parties.check_machine(vm)
        one_of(public_ip, self.parties.public_ips, "public IP")
        one_of(protocol, PROTOCOLS, "protocol")
        values = _values(wanted, _names(PortRecord))
        record = self.ports(vm, public_ip, protocol)
        if record is None:
            return f"   expected  {' '.join(wanted)}\n   seen      no such record"
        return _compare(record, values)

    def _flows(self, words: list[str]) -> str | None:
        if len(words) < 2:
            raise Unreadable("known: flows VM [REMOTE] KEY=VALUE...|none")
        vm, *wanted = words
        self.parties.check_machine(vm)
        found = self.flow_list(vm)
        if "=" not in wanted[0] and wanted[0] != "none":
            remote = wanted.pop(0)
            _check_remote(remote)
            found = [r for r in found if remote in (r.remote_ip, f"{r.remote_ip}:{r.remote_port}")]
        if wanted == ["none"]:
            return f"   expected  none\n   seen      {found}" if found else None
        values = _values(wanted, _names(FlowRecord))
        if len(found) != 1:
            return f"   expected  one flow\n   seen      {found}"
        return _compare(found[0], values)

    def _event(self, words: list[str]) -> str | None:
        name, *wanted = words or [""]
        kind = EVENTS[one_of(name, EVENTS, "event")]
        values = _values(wanted, _names(kind)) if wanted else {}
        seen, self._events = self._events, []
        for event in seen:
            if isinstance(event, kind) and _compare(event, values) is None:
                return None
        return f"   expected  event {' '.join(words)}\n   seen      {seen}"

    def _no_events(self, words: list[str]) -> str | None:
        if words != ["none"]:
            raise Unreadable("known: events none")
        seen, self._events = self._events, []
        return f"   expected  no event\n   seen      {seen}" if seen else None


def _check_remote(text: str) -> None:
    address, colon, port = text.partition(":")
    try:
        IPv4Address(address)
    except ValueError:
        raise Unreadable(f"no remote: {text!r}; known: ADDRESS[:PORT], KEY=VALUE, none") from None
    if colon:
        whole(port, "port")


def _names(record: type) -> list[str]:
    if is_dataclass(record):
        return [field.name for field in fields(record)]
    names: tuple[str, ...] = getattr(record, "_fields")  # noqa: B009
    return list(names)


def _values(wanted: list[str], known: Collection[str]) -> dict[str, str]:
    """What ``key=value`` words ask for."""
    values: dict[str, str] = {}
    for word in wanted:
        key, equals, value = word.partition("=")
        one_of(key, known, "field")
        if not equals or not value or key in values:
            raise Unreadable(f"no value, or the second: {word!r}; known: KEY=VALUE")
        values[key] = value
    if not values:
        raise Unreadable("nothing is asked; known: KEY=VALUE...")
    return values


def _compare(record: Any, wanted: dict[str, str]) -> str | None:
    """Whether a record has these values, as text."""
    for key, value in wanted.items():
        seen = getattr(record, key)
        seen = getattr(seen, "value", seen)
        if str(seen) != value and not (isinstance(seen, float) and f"{seen:g}" == value):
            return f"   expected  {key}={value}\n   seen      {record}"
    return None
