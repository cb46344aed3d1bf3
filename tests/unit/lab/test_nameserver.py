"""The lab's name server: what it answers to whom."""

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from gateway.lab import nameserver, topology


def ask(name: str, kind: str = "A", client: str = "203.0.113.10") -> DNSRecord:
    question = DNSRecord.question(name, kind)
    reply = nameserver.answer(bytes(question.pack()), client)
    assert reply is not None
    parsed = DNSRecord.parse(reply)
    assert parsed.header.id == question.header.id
    return parsed


def addresses(reply: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in reply.rr if record.rtype == QTYPE.A]


@pytest.mark.parametrize("name", ["myip.opendns.com", "MyIP.OpenDNS.com."])
def test_myip_is_the_address_that_asks(name: str) -> None:
    assert addresses(ask(name, client="203.0.113.21")) == ["203.0.113.21"]


def test_myip_has_no_ipv6_address_but_exists() -> None:
    reply = ask("myip.opendns.com", "AAAA")
    assert reply.header.rcode == RCODE.NOERROR
    assert reply.rr == []


@pytest.mark.parametrize("name", sorted(topology.HOSTS))
def test_every_name_of_the_lab_is_known(name: str) -> None:
    assert addresses(ask(name)) == list(topology.HOSTS[name])


def test_other_names_do_not_exist() -> None:
    reply = ask("www.example.org")
    assert reply.header.rcode == RCODE.NXDOMAIN
    assert reply.rr == []


@pytest.mark.parametrize("noise", [b"", b"\0", b"\xff" * 12, b"x" * 60000])
def test_noise_is_not_answered_or_refused(noise: bytes) -> None:
    reply = nameserver.answer(noise, "203.0.113.10")
    assert reply is None or DNSRecord.parse(reply).header.rcode == RCODE.FORMERR


def test_a_reply_is_not_answered() -> None:
    reply = DNSRecord.question("web1.example").reply()
    assert nameserver.answer(bytes(reply.pack()), "203.0.113.10") is None
