"""Every reason for which a packet is dropped: what it means, who decides it, what to do about it.

One enumeration serves counters, events, listings, metrics and the documentation (``docs/drops.md``
is made from it). Most packets are dropped by the engine. Those that must not even reach it, or
never did, are dropped by the kernel, which keeps a number of them only. Drops are silent on the
wire, as Azure's are: no ICMP, and no RST but a NAT gateway's (docs/fidelity.md A5, A7, A11).
"""

from enum import Enum


class DecidedBy(Enum):
    """What drops a packet. Only the engine sees its addresses."""

    ENGINE = "engine"
    RULE = "netfilter rule"
    GUARD = "guard"
    FAST_PATH = "fast path"
    QUEUE = "packet queue"


class DropReason(Enum):
    """Why a packet was dropped: ``value`` is the name in JSON, ``sentence`` what it means,
    ``advice`` what an operator does about it, ``decided_by`` who drops it."""

    sentence: str
    advice: str
    decided_by: tuple[DecidedBy, ...]

    def __new__(cls, name: str, sentence: str, advice: str, *decided_by: DecidedBy) -> "DropReason":
        """A member with what is said of it, which is no part of its value."""
        member = object.__new__(cls)
        member._value_ = name
        member.sentence = sentence
        member.advice = advice
        member.decided_by = decided_by or (DecidedBy.ENGINE,)
        return member

    # Enum's own hash is a Python function; drops are counted per packet.
    __hash__ = object.__hash__

    MALFORMED = (
        "Malformed",
        (
            "The packet is shorter than its headers say, or a header contradicts itself "
            "(version, header length, total length, data offset)."
        ),
        "Capture it (`snatgw capture`): a broken sender, or a test of one.",
    )
    FRAGMENT = (
        "Fragment",
        "A fragment reached the engine: the kernel's defragmentation is not at work.",
        "Report it: rules of the gateway keep the defragmentation on.",
    )
    FRAGMENTS_NOT_SUPPORTED = (
        "FragmentsNotSupported",
        (
            "The packet came in fragments, and in azure-current nothing that translates ports "
            "takes those: only a VM's own public IP does."
        ),
        "Have the sender send less than the path's MTU, or give the VM a public IP of its own.",
    )
    SOURCE_NOT_IN_VIRTUAL_NETWORK = (
        "SourceNotInVirtualNetwork",
        "The source address is in no subnet of the virtual network: spoofed, or not configured.",
        (
            "Add the range to `virtualNetwork.subnets` if it is a VM of yours; else find who "
            "forges it."
        ),
        DecidedBy.ENGINE,
        DecidedBy.RULE,
    )
    SOURCE_NOT_OUTSIDE = (
        "SourceNotOutside",
        (
            "A packet from outside says that it is from the virtual network, the platform, this "
            "gateway or nowhere at all: spoofed."
        ),
        "Find who sends it in the outside network; a router there ought to filter it (BCP 38).",
        DecidedBy.ENGINE,
        DecidedBy.RULE,
    )
    DESTINATION_NOT_INTERNET = (
        "DestinationNotInternet",
        (
            "The destination is private, link-local, loopback or multicast and not in the virtual "
            "network; gateway.internetAddressPrefixes can declare such a range to be internet."
        ),
        "Declare the range in `gateway.internetAddressPrefixes`, or mend the VM's destination.",
    )
    ROUTED_ELSEWHERE = (
        "RoutedElsewhere",
        (
            "This host's routing leads the packet to a network that is neither inside nor outside, "
            "and it is no answer to a flow from there."
        ),
        "Mend this host's route to the destination: `ip route get ADDRESS`.",
    )
    NO_OUTBOUND_METHOD = (
        "NoOutboundMethod",
        (
            "The VM has no outbound connectivity: no NAT gateway, instance-level public IP, "
            "outbound rule or load balancing rule that links its pool to a frontend (none with "
            "disableOutboundSnat does), and no default outbound access (its subnet's to allow in "
            "azure-current)."
        ),
        "Give the VM one: a NAT gateway, a public IP, an outbound rule.",
    )
    PROTOCOL_WITHOUT_RULE = (
        "ProtocolWithoutRule",
        (
            "The rules that give the VM SNAT are for another protocol: a load balancing rule of a "
            "Standard load balancer, and an outbound rule, program their own protocol only."
        ),
        "Add a rule for the protocol (`protocol: All` in an outbound rule).",
    )
    DEFAULT_OUTBOUND_CAPACITY = (
        "DefaultOutboundCapacity",
        "Every SNAT port of the public IPs of defaultOutboundAccess is allocated to another VM.",
        "Add public IPs to `defaultOutboundAccess`.",
    )
    PROTOCOL_NOT_SUPPORTED = (
        "ProtocolNotSupported",
        "SNAT translates TCP and UDP only; an instance-level public IP passes every protocol.",
        "Give the VM a public IP of its own.",
    )
    ICMP_ECHO_THROUGH_SNAT = (
        "IcmpEchoThroughSnat",
        (
            "Azure does not translate ICMP echo (ping) through SNAT; it passes through an "
            "instance-level public IP, and gateway.icmpEcho: translate allows it in a lab."
        ),
        "Test with TCP, as on Azure, or set `gateway.icmpEcho: translate`.",
    )
    ICMP_NOT_SUPPORTED = (
        "IcmpNotSupported",
        "This ICMP type is neither an echo nor an error that a NAT passes on.",
        "Nothing: no NAT translates it.",
    )
    ICMP_ERROR_WITHOUT_FLOW = (
        "IcmpErrorWithoutFlow",
        "The ICMP error quotes a packet that belongs to no live flow.",
        "Nothing, unless there are many: the flow has ended, or the error is forged.",
    )
    ICMP_ERROR_INVALID = (
        "IcmpErrorInvalid",
        (
            "The ICMP error is longer than the 576 bytes that one may have, or its checksum is "
            "wrong, or that of the IP header which it quotes."
        ),
        "Find who sends it: it is damaged or forged.",
    )
    ICMP_ERROR_MISADDRESSED = (
        "IcmpErrorMisaddressed",
        (
            "The ICMP error quotes a packet of a live flow, but does not go to the sender of that "
            "packet, or comes from a VM that the packet was not sent to: forged."
        ),
        "Find who sends it: it is forged.",
    )
    PORTS_EXHAUSTED = (
        "PortsExhausted",
        "Every SNAT port allocated to the VM is in use toward this destination.",
        (
            "`snatgw diagnose` names VM, destination and remedy: reuse connections, or "
            "allocate more ports."
        ),
    )
    FLOW_TABLE_FULL = (
        "FlowTableFull",
        "The flow table holds gateway.maximumFlows flows; new ones are not opened.",
        "Raise `gateway.maximumFlows`, or find who opens so many (`snatgw top`).",
    )
    TCP_WITHOUT_FLOW = (
        "TcpWithoutFlow",
        (
            "A TCP packet that is not a SYN belongs to no live flow: the flow ended, was idle for "
            "longer than the timeout, or began before the gateway did."
        ),
        "Send keepalives more often than the idle timeout, or raise `idleTimeoutInMinutes`.",
    )
    PORT_RECLAIMED = (
        "PortReclaimed",
        "The flow's SNAT port was taken back when its backend pool grew over a tier.",
        "Nothing: connections open again. Set `allocatedOutboundPorts` to keep pools as they are.",
    )
    INBOUND_WITHOUT_FLOW = (
        "InboundWithoutFlow",
        "A packet from outside to a SNAT port belongs to no flow toward that remote endpoint.",
        "Nothing: a port scan, or a late reply. For a service, add an inbound rule.",
    )
    DENIED_BY_SECURITY_RULE = (
        "DeniedBySecurityRule",
        "A rule of a network security group denies the flow; snatgw nsg shows which ones do.",
        "Change the rule if it ought to pass: `snatgw nsg`, `snatgw explain`.",
    )
    CLOSED_WITHOUT_SECURITY_GROUP = (
        "ClosedWithoutSecurityGroup",
        (
            "A Standard public IP is closed to what begins outside until a network security group, "
            "of the VM's interface or its subnet, allows it; none stands there."
        ),
        "Add a network security group that allows it.",
    )
    NO_HEALTHY_BACKEND = (
        "NoHealthyBackend",
        (
            "No VM behind the load balancing rule is up: each fails its health probe, or the pool "
            "is empty. A load balancer answers nothing itself."
        ),
        "Look at `snatgw health`: what the probe answers, and whether the pool has VMs.",
    )
    PRIVATE_ENDPOINT_IN_USE = (
        "PrivateEndpointInUse",
        (
            "The remote endpoint has a live TCP connection with the same port of the same VM by "
            "way of another public address or port: the VM could not distinguish the two."
        ),
        "Nothing: the remote tries again from another port, or the first connection ends.",
    )
    HAIRPIN_TO_ITSELF = (
        "HairpinToItself",
        (
            "The load balancer's rule mapped a VM's flow to that VM itself. Azure does not support "
            "this, and it times out; mapped to another VM it works, so that it fails now and then. "
            "Or a VM sent to its own public IP at the very port that it sent from."
        ),
        "Have the VM ask itself, or another load balancer; do not build on hairpins.",
    )
    HAIRPIN_WITHOUT_RULE = (
        "HairpinWithoutRule",
        "A VM sent to a public IP of this gateway, and nothing there takes it.",
        "Add a rule for that port, or ask the VM by its private address.",
    )
    PRIVATE_ADDRESS_OUTSIDE = (
        "PrivateAddressOutside",
        (
            "A packet with an address of the virtual network at either end, or an ICMP error that "
            "quotes one, was about to leave by the outside interface untranslated: this host's "
            "own, a reply whose route inside is gone, or what got past the rules because they "
            "were flushed or an ACCEPT was put in front."
        ),
        (
            "Look for `RulesRestored`, `RulesMoved` and `HostChanged` among the events, and "
            "at `snatgw diagnose`."
        ),
        DecidedBy.ENGINE,
        DecidedBy.RULE,
        DecidedBy.GUARD,
    )
    PUBLIC_ADDRESS_UNKNOWN = (
        "PublicAddressUnknown",
        (
            "A packet from outside is for no public IP of the configuration in force: for a "
            "private address, or for another host."
        ),
        "Add it to `publicIPAddresses` if it is yours; else find who routes it to this host.",
        DecidedBy.ENGINE,
        DecidedBy.RULE,
    )
    SOURCE_NOT_BEHIND_INTERFACE = (
        "SourceNotBehindInterface",
        (
            "A packet from inside for this host itself has a source to which this host's routing "
            "leads by another interface: the answer would go there. Where this kernel cannot ask "
            "for the route (xt_rpfilter), the answer is dropped in its place."
        ),
        "Find who forges it; or mend the route to the source: `ip route get SOURCE`.",
        DecidedBy.RULE,
    )
    ICMP_REDIRECT = (
        "IcmpRedirect",
        (
            "This host's kernel wanted to send a VM an ICMP redirect. A VM has one router, and "
            "the address that a redirect about a hairpin names is not inside."
        ),
        "Nothing: VMs of one subnet reach each other, or a public IP, through the gateway.",
        DecidedBy.RULE,
    )
    IPV6_NOT_SUPPORTED = (
        "Ipv6NotSupported",
        "IPv6 is not translated: what comes from inside goes to inside or nowhere.",
        "Turn IPv6 off in the VM if it waits for it; or route it elsewhere.",
        DecidedBy.RULE,
    )
    HELD_BACK = (
        "HeldBack",
        (
            "The fast path had taken over a TCP flow whose earlier packets still waited in the "
            "queue: the newer one would have overtaken them. The sender sends it again."
        ),
        "Nothing, if few (`fastPath.heldBack`); many: the gateway lacks processor time.",
        DecidedBy.FAST_PATH,
    )
    QUEUE_OVERFLOW = (
        "QueueOverflow",
        (
            "The packet queue, or the buffer of its socket, was full: packets came faster than "
            "the engine took them."
        ),
        "Look at `queue` in `snatgw status`: more processor time, the fast path, or less load.",
        DecidedBy.QUEUE,
    )
    INTERNAL_ERROR = (
        "InternalError",
        "An internal error of the gateway while it handled the packet; untranslated none passes.",
        "Report it with the trace in the event `HandlerError`.",
    )
