"""Every reason for which the engine refuses a packet, with the sentence that the user reads.

One enumeration serves counters, events, listings and the documentation. Drops are silent on the
wire, as Azure's are: no ICMP, and no RST but a NAT gateway's (docs/fidelity.md A5, A7, A11).
"""

from enum import Enum


class DropReason(Enum):
    """Why a packet was dropped: ``value`` is the name in JSON, ``sentence`` what it means."""

    sentence: str

    def __new__(cls, name: str, sentence: str) -> "DropReason":
        """A member with its sentence, which is no part of its value."""
        member = object.__new__(cls)
        member._value_ = name
        member.sentence = sentence
        return member

    # Enum's own hash is a Python function; drops are counted per packet.
    __hash__ = object.__hash__

    MALFORMED = (
        "Malformed",
        (
            "The packet is shorter than its headers say, or a header contradicts itself "
            "(version, header length, total length, data offset)."
        ),
    )
    FRAGMENT = (
        "Fragment",
        "A fragment reached the engine: the kernel's defragmentation is not at work.",
    )
    FRAGMENTS_NOT_SUPPORTED = (
        "FragmentsNotSupported",
        (
            "The packet came in fragments, and in azure-current nothing that translates ports "
            "takes those: only a VM's own public IP does."
        ),
    )
    SOURCE_NOT_IN_VIRTUAL_NETWORK = (
        "SourceNotInVirtualNetwork",
        "The source address is in no subnet of the virtual network: spoofed, or not configured.",
    )
    SOURCE_NOT_OUTSIDE = (
        "SourceNotOutside",
        (
            "A packet from outside says that it is from the virtual network, the platform, this "
            "gateway or nowhere at all: spoofed."
        ),
    )
    DESTINATION_NOT_INTERNET = (
        "DestinationNotInternet",
        (
            "The destination is private, link-local, loopback or multicast and not in the virtual "
            "network; gateway.internetAddressPrefixes can declare such a range to be internet."
        ),
    )
    ROUTED_ELSEWHERE = (
        "RoutedElsewhere",
        (
            "This host's routing leads the packet to a network that is neither inside nor outside, "
            "and it is no answer to somebody there."
        ),
    )
    NO_OUTBOUND_METHOD = (
        "NoOutboundMethod",
        (
            "The VM has no outbound connectivity: no NAT gateway, instance-level public IP, "
            "outbound rule or load balancing rule that links its pool to a frontend (none with "
            "disableOutboundSnat does), and no default outbound access (its subnet's to allow in "
            "azure-current)."
        ),
    )
    PROTOCOL_WITHOUT_RULE = (
        "ProtocolWithoutRule",
        (
            "The rules that give the VM SNAT are for another protocol: a load balancing rule of a "
            "Standard load balancer, and an outbound rule, program their own protocol only."
        ),
    )
    DEFAULT_OUTBOUND_CAPACITY = (
        "DefaultOutboundCapacity",
        "Every SNAT port of the public IPs of defaultOutboundAccess is allocated to another VM.",
    )
    PROTOCOL_NOT_SUPPORTED = (
        "ProtocolNotSupported",
        "SNAT translates TCP and UDP only; an instance-level public IP passes every protocol.",
    )
    ICMP_ECHO_THROUGH_SNAT = (
        "IcmpEchoThroughSnat",
        (
            "Azure does not translate ICMP echo (ping) through SNAT; it passes through an "
            "instance-level public IP, and gateway.icmpEcho: translate allows it in a lab."
        ),
    )
    ICMP_NOT_SUPPORTED = (
        "IcmpNotSupported",
        "This ICMP type is neither an echo nor an error that a NAT passes on.",
    )
    ICMP_ERROR_WITHOUT_FLOW = (
        "IcmpErrorWithoutFlow",
        "The ICMP error quotes a packet that belongs to no live flow.",
    )
    ICMP_ERROR_INVALID = (
        "IcmpErrorInvalid",
        (
            "The ICMP error is longer than the 576 bytes that one may have, or its checksum is "
            "wrong, or that of the IP header which it quotes."
        ),
    )
    ICMP_ERROR_MISADDRESSED = (
        "IcmpErrorMisaddressed",
        (
            "The ICMP error quotes a packet of a live flow, but does not go to the sender of that "
            "packet, or comes from a VM that the packet was not sent to: forged."
        ),
    )
    PORTS_EXHAUSTED = (
        "PortsExhausted",
        "Every SNAT port allocated to the VM is in use toward this destination.",
    )
    FLOW_TABLE_FULL = (
        "FlowTableFull",
        "The flow table holds gateway.maximumFlows flows; new ones are refused.",
    )
    TCP_WITHOUT_FLOW = (
        "TcpWithoutFlow",
        (
            "A TCP packet that is not a SYN belongs to no live flow: the flow ended, was idle for "
            "longer than the timeout, or began before the gateway did."
        ),
    )
    PORT_RECLAIMED = (
        "PortReclaimed",
        "The flow's SNAT port was taken back when its backend pool grew over a tier.",
    )
    INBOUND_WITHOUT_FLOW = (
        "InboundWithoutFlow",
        "A packet from outside to a SNAT port belongs to no flow toward that remote endpoint.",
    )
    DENIED_BY_SECURITY_RULE = (
        "DeniedBySecurityRule",
        "A rule of a network security group denies the flow; snatgw nsg shows which ones do.",
    )
    CLOSED_WITHOUT_SECURITY_GROUP = (
        "ClosedWithoutSecurityGroup",
        (
            "A Standard public IP is closed to what begins outside until a network security group, "
            "of the VM's interface or its subnet, allows it; none stands there."
        ),
    )
    NO_HEALTHY_BACKEND = (
        "NoHealthyBackend",
        (
            "No VM behind the load balancing rule is up: each fails its health probe, or the pool "
            "is empty. A load balancer answers nothing itself."
        ),
    )
    PRIVATE_ENDPOINT_IN_USE = (
        "PrivateEndpointInUse",
        (
            "The remote endpoint has a live TCP connection with the same port of the same VM by "
            "way of another public address or port: the VM could not tell the two apart."
        ),
    )
    HAIRPIN_TO_ITSELF = (
        "HairpinToItself",
        (
            "The load balancer's rule mapped a VM's flow to that VM itself. Azure does not support "
            "this, and it times out; mapped to another VM it works, so that it fails now and then. "
            "Or a VM sent to its own public IP at the very port that it sent from."
        ),
    )
    HAIRPIN_WITHOUT_RULE = (
        "HairpinWithoutRule",
        "A VM sent to a public IP of this gateway, and nothing there takes it.",
    )
    PRIVATE_ADDRESS_OUTSIDE = (
        "PrivateAddressOutside",
        (
            "A packet with an address of the virtual network at either end, or an ICMP error that "
            "quotes one, was about to leave by the outside interface untranslated. The guard there "
            "stops what got past the rules: somebody flushed them, or put an ACCEPT in front."
        ),
    )
    PUBLIC_ADDRESS_UNKNOWN = (
        "PublicAddressUnknown",
        "The destination is no public IP of the configuration in force.",
    )
