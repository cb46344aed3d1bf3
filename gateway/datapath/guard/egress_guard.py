"""The guard: a program on the outside interface that netfilter cannot lose.

It stands at tc's egress, behind all of the host's rules, and drops what has an address of the
virtual network at either end: whatever flushes rules or puts an ACCEPT in front, whether the daemon
lives or not, such packets do not leave. The rules do the same work earlier; the guard is for when
they are not there. It sees untagged IPv4 only: a VLAN on the same interface is not the gateway's.

A filter of ours is known by its handle, whichever priority it found. What it drops is counted by
the qdisc, where the fast path's programs never drop for a reason of their own; others' filters may,
and classic BPF has no counter that would distinguish these.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from struct import Struct

from gateway.datapath.errors import DatapathError
from gateway.datapath.guard import reported_drops
from gateway.datapath.guard.guard_program import INSTRUCTION, assemble
from gateway.datapath.host import netlink
from gateway.datapath.host.netfilter_rules import DiversionPlan
from gateway.datapath.host.netlink import NESTED, attribute, attributes

_HANDLE = 0xAC57
_PROBE_PRIORITY = 0xAC58
_PRIORITIES = range(1, 16)  # the first that is free: who comes first has the last word

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38  # linux/rtnetlink.h
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400  # linux/netlink.h
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000  # linux/pkt_sched.h
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2, _TCA_STATS_QUEUE = 1, 2, 7, 3
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 4, 5, 7, 8  # linux/pkt_cls.h
_DIRECT_ACTION = 1
_FAST_PATH = b"snatgw/"  # how its filters' names begin
_IPV4 = socket.htons(0x0800)
_message = Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_short, _word = Struct("=H"), Struct("=I")
_SIOCGIFHWADDR, _ARPHRD_ETHER, _IFNAMSIZ = 0x8927, 1, 15  # linux/sockios.h, if_arp.h, if.h
_ifreq = Struct("=16sH22x")  # name, then the hardware address's family
_queue = Struct("=IIIII")  # struct gnet_stats_queue: the third is what was dropped


@dataclass(frozen=True)
class _Filter:
    priority: int
    program: bytes


class Guard:
    """The guard of one gateway's outside interface. Failures are DatapathError."""

    kind = "tc"

    def __init__(self, plan: DiversionPlan) -> None:
        self._outside = plan.outside
        self._token = secrets.randbits(32)
        self._program = _program(plan, self._token)
        self._seen = 0
        self._total = 0
        self._told: int | None = None
        self.interface = 0
        """The index of the interface that it was put on."""
        self.meanwhile = 0
        """Packets dropped between an earlier daemon's last telling and our start."""
        self.shared = False
        """Whether some that were not reported yet may have been dropped by filters of other
        programs."""

    def change(self, plan: DiversionPlan) -> None:
        """Look for another plan's addresses; there is no moment without a guard."""
        program = _program(plan, self._token)
        if program != self._program:
            self._program = program
            self.put()

    def put(self) -> None:
        """Have it stand, in place of what an earlier gateway left."""
        try:
            index = self.interface = socket.if_nametoindex(self._outside)
            _add_qdisc(index)
            left = list(_filters(index))
            if self._told is None:
                self._go_on(index, left)
            self._attach(index, left)
            self._note()
            for old in left[1:]:
                _delete(index, old.priority)
        except OSError as error:
            line = f"{self._outside}: no guard can stand there: {error.strerror or error}"
            raise DatapathError([line]) from None

    def stands(self) -> bool:
        """Whether it does; an interface that is not there needs none."""
        try:
            index = socket.if_nametoindex(self._outside)
        except OSError:
            return True
        try:
            return [found.program for found in _filters(index)] == [self._program]
        except OSError:
            return False

    def dropped(self) -> int:
        """Packets that it has dropped since the start, and ``meanwhile``."""
        try:
            index = socket.if_nametoindex(self._outside)
            now = _dropped(index)
            if now != self._seen:
                self.shared = self.shared or _has_others(index)
        except OSError:
            return self._total
        self._total += _grown(self._seen, now)
        self._seen = now
        return self._total

    def told(self) -> None:
        """All that ``dropped`` has counted was reported: the next daemon need not."""
        self._told, self.shared = self._seen, False
        self._note()

    def go_on_from(self, total: int) -> None:
        """Count on from what another guard of this daemon's has dropped."""
        self._total += total

    def close(self) -> None:
        """It stands without us."""

    def _go_on(self, index: int, left: list[_Filter]) -> None:
        """From what an earlier daemon has reported of the guard that it left."""
        self._seen = self._told = _dropped(index)
        before = reported_drops.read(self._outside, _identity(left[0].program)) if left else None
        if before is not None and before != self._seen:
            self._told = before
            self.meanwhile = _grown(before, self._seen)
            self._total += self.meanwhile
            self.shared = _has_others(index)

    def _note(self) -> None:
        assert self._told is not None
        reported_drops.write(self._outside, _identity(self._program), self._told)

    def _attach(self, index: int, left: list[_Filter]) -> None:
        if left:
            _add(index, left[0].priority, self._program)
            return
        self._seen = self._told = _dropped(index)  # others' before it
        for priority in _PRIORITIES:
            try:
                _add(index, priority, self._program)
            except OSError as error:
                # Another filter has it: of another kind, for another protocol.
                if error.errno not in (errno.EINVAL, errno.EEXIST, errno.ENOENT):
                    raise
                reason = error
            else:
                return
        raise reason


def identity(outside: str) -> str:
    """Names the guard that stands there, among all that ever did; empty: none does."""
    try:
        found = list(_filters(socket.if_nametoindex(outside)))
    except OSError:
        return ""
    return _identity(found[0].program) if found else ""


def why_not(outside: str) -> str:
    """Why none can stand there; empty: one can. Changes nothing that stays."""
    try:
        index = socket.if_nametoindex(outside)
        if any(_filters(index)):
            return ""  # one does; a live gateway would take another for interference
        had_qdisc = _clsact(index) is not None
        _add_qdisc(index)
        try:
            _add(index, _PROBE_PRIORITY, assemble(()))
            _delete(index, _PROBE_PRIORITY)
        finally:
            if not had_qdisc and not _has_filters(index):
                _delete_qdisc(index)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def remove(outside: str) -> None:
    """Remove a guard, if one stands there. The clsact qdisc stays: others may use it by now.

    Raises DatapathError.
    """
    try:
        index = socket.if_nametoindex(outside)
    except OSError:
        return
    try:
        for found in list(_filters(index)):
            _delete(index, found.priority)
        reported_drops.erase(outside)
    except OSError as error:
        line = f"{outside}: the guard cannot be removed: {error.strerror or error}"
        raise DatapathError([line]) from None


def _program(plan: DiversionPlan, token: int) -> bytes:
    """What must not leave: the virtual network, and what health probes have as their source."""
    probes = [] if plan.probe_source is None else [IPv4Network(plan.probe_source)]
    try:
        ethernet = _is_ethernet(plan.outside)
        return assemble(plan.private_prefixes, probes, token=token, ethernet=ethernet)
    except ValueError as error:
        raise DatapathError([str(error)]) from None


def _is_ethernet(interface: str) -> bool:
    """Whether packets begin with that header; False where that is unknown."""
    if len(interface.encode()) > _IFNAMSIZ:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        request = _ifreq.pack(interface.encode(), 0)
        try:
            answer = fcntl.ioctl(anything, _SIOCGIFHWADDR, request)
        except OSError:
            return False
    return bool(_ifreq.unpack(answer)[1] == _ARPHRD_ETHER)


def _add_qdisc(index: int) -> None:
    kind = attribute(_TCA_KIND, b"clsact\0")
    body = _message.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + kind
    try:
        netlink.ask(_RTM_NEWQDISC, _NLM_F_CREATE | _NLM_F_EXCL, body)
    except OSError as error:
        # An ingress qdisc stands in the same place, and would take our filter for its own side.
        if error.errno != errno.EEXIST or _clsact(index) is None:
            raise


def _delete_qdisc(index: int) -> None:
    kind = attribute(_TCA_KIND, b"clsact\0")
    body = _message.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + kind
    netlink.ask(_RTM_DELQDISC, 0, body)


def _has_filters(index: int) -> bool:
    return any(
        next(netlink.dump(_RTM_GETTFILTER, _message.pack(0, index, 0, parent, 0)), None)
        for parent in (_INGRESS, _EGRESS)
    )


def _add(index: int, priority: int, program: bytes) -> None:
    """Add a filter, or put another program into the one that is there."""
    options = b"".join(
        (
            attribute(_TCA_BPF_OPS_LEN, _short.pack(len(program) // INSTRUCTION.size)),
            attribute(_TCA_BPF_OPS, program),
            attribute(_TCA_BPF_FLAGS, _word.pack(_DIRECT_ACTION)),
        )
    )
    kind = attribute(_TCA_KIND, b"bpf\0") + attribute(_TCA_OPTIONS | NESTED, options)
    netlink.ask(_RTM_NEWTFILTER, _NLM_F_CREATE | _NLM_F_REPLACE, _place(index, priority) + kind)


def _delete(index: int, priority: int) -> None:
    kind = attribute(_TCA_KIND, b"bpf\0")
    try:
        netlink.ask(_RTM_DELTFILTER, 0, _place(index, priority) + kind)
    except OSError as error:
        # another program did, or the qdisc went
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _place(index: int, priority: int) -> bytes:
    return _message.pack(0, index, _HANDLE, _EGRESS, priority << 16 | _IPV4)


def _filters(index: int) -> Iterator[_Filter]:
    """Those of ours that an interface has."""
    for body in netlink.dump(_RTM_GETTFILTER, _message.pack(0, index, 0, _EGRESS, 0)):
        _, at, handle, _, info = _message.unpack_from(body)
        found = attributes(body[_message.size :])
        options = attributes(found.get(_TCA_OPTIONS, b""))
        if at == index and handle == _HANDLE:
            yield _Filter(info >> 16, options.get(_TCA_BPF_OPS, b""))


def _has_others(index: int) -> bool:
    """Whether filters stand there that are neither the guard nor the fast path's."""
    for parent in (_INGRESS, _EGRESS):
        for body in netlink.dump(_RTM_GETTFILTER, _message.pack(0, index, 0, parent, 0)):
            handle = _message.unpack_from(body)[2]
            found = attributes(body[_message.size :])
            if found.get(_TCA_KIND) != b"bpf\0":
                return True
            name = attributes(found.get(_TCA_OPTIONS, b"")).get(_TCA_BPF_NAME, b"")
            ours = handle == _HANDLE if parent == _EGRESS else name.startswith(_FAST_PATH)
            if handle and not ours:  # without one, it says that there is a priority
                return True
    return False


def _grown(before: int, now: int) -> int:
    """Counters begin again with their qdisc, and have 32 bits."""
    return now - before if now >= before else now


def _identity(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()


def _dropped(index: int) -> int:
    """What clsact has dropped on an interface."""
    found = _clsact(index)
    if found is None:
        return 0
    queue = attributes(found.get(_TCA_STATS2, b"")).get(_TCA_STATS_QUEUE, b"")
    return int(_queue.unpack_from(queue)[2]) if len(queue) >= _queue.size else 0


def _clsact(index: int) -> dict[int, bytes] | None:
    """What the kernel reports of an interface's clsact qdisc, if it has one.

    To ask for that one alone would notify all who listen for changes of tc. A dump goes on as it is
    read, and no further than to this interface, which mostly is among the first.
    """
    for body in netlink.dump(_RTM_GETQDISC, _message.pack(0, index, 0, 0, 0)):
        found = attributes(body[_message.size :])
        if _message.unpack_from(body)[1] == index and found.get(_TCA_KIND) == b"clsact\0":
            return found
    return None
