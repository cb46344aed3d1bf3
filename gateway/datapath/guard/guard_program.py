"""The guard's program, in classic BPF: which IPv4 packets may not leave by the outside interface.

Whatever the gateway has translated has a public IP at the VM's end, so none has an address of the
virtual network at either end there, nor does an ICMP error quote one. Written for the tc hook with
direct action, where the program's result is what becomes of the packet. Offsets are from the IP
header, so that the kind of link does not matter; on Ethernet, where that is quicker, those that
every packet meets are from the frame's start. Classic BPF needs no ``bpf()`` and no
compiler.

A load beyond the packet's end ends the program with 0, which lets it pass: nothing that has a
whole IP header is passed so.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses
from struct import Struct

DROP, GO_ON = 2, 0xFFFFFFFF  # linux/pkt_cls.h: TC_ACT_SHOT; TC_ACT_UNSPEC, ask the next filter
LONGEST = 4096  # instructions: linux/bpf_common.h, BPF_MAXINSNS
INSTRUCTION = Struct("=HBBI")  # code, jump if true, jump if false, operand

_IP = 0xFFF00000  # linux/filter.h: SKF_NET_OFF
_ETHERNET = 14  # linux/if_ether.h: ETH_HLEN
_FRAGMENT, _PROTOCOL, _SOURCE, _DESTINATION = 6, 9, 12, 16
_ICMP, _ICMP_HEADER = 1, 8
ERRORS = (3, 4, 5, 11, 12)
_OFFSET = 0x1FFF

# linux/bpf_common.h: load a word, a half, a byte, at an offset or at X and an offset; ...
_LD_W, _LD_H, _LD_B, _LD_W_X, _LD_B_X, _LD_MEM = 0x20, 0x28, 0x30, 0x40, 0x50, 0x60
_LDX_HEADER = 0xB1  # X is four times the byte's lower half: the length of an IP header
_ST, _AND, _JEQ, _JSET, _RET = 0x02, 0x54, 0x15, 0x45, 0x06

_Code = list[tuple[int, int, int, int]]


def assemble(
    ends: Iterable[IPv4Network],
    sources: Iterable[IPv4Network] = (),
    *,
    token: int = 0,
    ethernet: bool = False,
) -> bytes:
    """The program that drops what has ``ends`` at either end, or is from ``sources``.

    ``ethernet``: packets have that header before IP's. ``token`` distinguishes the program from
    others that do the same: a number that no packet comes to. Raises ValueError where there are
    more networks than it can hold.
    """
    either = tuple(collapse_addresses(ends))
    from_there = tuple(collapse_addresses([*either, *sources]))
    start = _ETHERNET if ethernet else _IP
    code: _Code = [(_LD_W, 0, 0, start + _SOURCE)]
    code += _drop_if_in(from_there)
    code += [(_LD_W, 0, 0, start + _DESTINATION)]
    code += _drop_if_in(either)
    code += [
        (_LD_B, 0, 0, start + _PROTOCOL),
        (_JEQ, 1, 0, _ICMP),
        (_RET, 0, 0, GO_ON),
        (_LD_H, 0, 0, _IP + _FRAGMENT),
        (_JSET, 0, 1, _OFFSET),
        (_RET, 0, 0, GO_ON),
        (_LDX_HEADER, 0, 0, _IP),
        (_LD_B_X, 0, 0, _IP),
    ]
    code += [(_JEQ, len(ERRORS) - n, 0, kind) for n, kind in enumerate(ERRORS)]
    code += [(_RET, 0, 0, GO_ON)]
    for address in (_SOURCE, _DESTINATION):
        code += [(_LD_W_X, 0, 0, _IP + _ICMP_HEADER + address)]
        code += _drop_if_in(either)
    code += [(_RET, 0, 0, GO_ON), (_RET, 0, 0, token)]
    if len(code) > LONGEST:
        raise ValueError(f"{len(either)} address prefixes are more than a guard can look for")
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def _drop_if_in(networks: Iterable[IPv4Network]) -> _Code:
    """Drop if the loaded address is in one of them."""
    by_mask: dict[int, list[int]] = {}
    for network in networks:
        by_mask.setdefault(int(network.netmask), []).append(int(network.network_address))
    code: _Code = [(_ST, 0, 0, 0)] if len(by_mask) > 1 else []
    for number, (mask, addresses) in enumerate(by_mask.items()):
        if number:
            code += [(_LD_MEM, 0, 0, 0)]
        code += [(_AND, 0, 0, mask)]
        for address in addresses:
            code += [(_JEQ, 0, 1, address), (_RET, 0, 0, DROP)]
    return code
