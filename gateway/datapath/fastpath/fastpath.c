// The fast path: carries out, in the kernel, what the engine decided when a flow opened.
//
// Attached to tc ingress of the inside interfaces (`from_inside`) and of the outside one
// (`from_outside`). A packet whose five-tuple has an entry is rewritten, counted and redirected.
// Everything else goes up unchanged, into the packet queue: unknown flows, fragments, IP options,
// TTL 1, a SYN that opens, what is larger than the way out allows, and whatever does not look as it should.
// The map is a cache of decisions: an empty one is slower, never wrong.
//
// It forwards as the kernel would: frames for this host alone and of this interface alone, the route
// looked up with the addresses that the kernel sees when it routes (the VM's own), and the next hop's
// hardware address left to the kernel, which verifies it. The kernel's answer is remembered for FRESH:
// a changed route, rule or forwarding setting reaches a live flow after that time at the latest.
//
// Order: what goes up waits in the packet queue, which is first in, first out. So a flow is carried
// only while nothing of that direction can wait there: every packet of an entry that goes up gets a
// number (`up`), which comes up as its timestamp, and the daemon writes the number of the last one that
// had its verdict (`handled`). The two are equal, or the packet goes up as well. What is lost on the way
// costs nothing: a later number tells of all before it. A flow that cannot catch up since the queue is
// full (it waits for WAIT already, and a packet of it for LATENCY) is held back until it has; anybody's
// packets are being lost there then, and so they would go on.
//
// It touches packet headers only, so it needs neither BTF nor CO-RE.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define OFFSET 0x1fff
#define FRAGMENT 0x3fff // more fragments, or an offset
#define NO_OPTIONS 5
#define WINDOW 65536 // as in sequence.py
#define NUMBERS 0xffff // 16 bits; the packet queue has room for some thousands
#define MOST_SEGMENTS 0xff
#define STAMPS 4700000000000000000ULL // nanoseconds: later than any clock is, and ours
enum { WAIT = 100, LATENCY = 20, PROBE = 10, FRESH = 47 }; // milliseconds (of 2^20 ns)

enum { FROM_INSIDE = 0, FROM_OUTSIDE = 1 };
enum { FIN = 1, SYN = 2, RST = 4 }; // as in the TCP header, and as the engine has them
enum { ANY = 8 };                   // any segment, where the engine waits for one
enum { SUM = 16 };                  // UDP: a checksum that is finished (in `seen`, not reported)

// Flags of bpf_fib_lookup that older headers (and kernels) do not know.
#define NO_NEIGHBOUR (1U << 2) // Linux 6.3: without the next hop's hardware address
#define BY_MARK (1U << 5)      // Linux 6.10; the mark is where the answer's addresses are

// A packet as it arrives. All in network order.
struct key {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 side; // which program may match it
	__u8 unused[2];
};

// The kernel's answer to where a packet goes. Used as long as it is fresh, and for the time in which
// the interfaces do not forward any more (`settings.until`).
union way_out {
	struct {
		__u32 interface; // 0: never
		__be32 next_hop;
	};
	__u64 word;
};

// What becomes of it. `address` and `port` replace the source's (from inside) or the
// destination's (from outside); they are those of the packet itself where nothing is translated.
//
// Times are milliseconds (of 2^20 ns) of CLOCK_MONOTONIC, and only differences count. After 52 days they
// wrap: a flow without a packet for that long takes an old answer for a fresh one, or waits once more.
struct entry {
	__u64 flow;       // the engine's number of the flow
	union way_out way;
	__u32 counter;    // index into `counters`
	__be32 address;
	__be16 port;
	__u8 seen;        // FIN, SYN (with ACK), RST, ANY: seen and reported, or not waited for; SUM
	__u8 to_outside;  // it must leave by the outside interface, else by any other
	__u8 reverse;     // the second of the flow's two directions
	__u8 tos;         // `way` is for packets with this TOS,
	__u16 from;       // by this interface (the lower half of its index),
	__u32 looked;     // asked for at this time, and
	__u16 mtu;        // no larger than this
	__u16 mark;       // the number that went up
	__u32 marked;     // at this time, by which the queue's latency is known
	__u32 waiting;    // since when packets go up without a pause; 0: none did yet
	__u32 last;       // when the last one went up
	__u32 idle;       // milliseconds after which the flow is over, whoever is there to end it
};
// With key (16), the map's own 48 and the allocator's 8 it takes 128 bytes, which is two cache lines. One
// byte more, and it takes 192.
_Static_assert(sizeof(struct entry) == 56, "an entry takes more memory than meant");

struct counter {
	__u64 packets;
	__u64 bytes; // of IP, whole packets; a segmentation-offloaded one counts as its segments
	__u64 used;  // CLOCK_MONOTONIC (coarse), nanoseconds; at first when the entry was installed
	__u32 acknowledged; // by TCP's last segment, which is the number expected next; 0: unknown
	__u16 up;      // the number of the last packet that went up; written by the daemon
	__u16 handled; // while there is no entry, as this one is always
};

struct report {
	__u64 flow;
	__u64 when;
	__u32 counter;
	__u8 flags;
	__u8 reverse;
	__u8 unused[2];
};

// Written again when the outside interface was removed and made again, and when the daemon leaves.
volatile struct {
	__u32 outside_interface;
	__u32 lacking; // this kernel was seen not to know the newer flags of bpf_fib_lookup
	__u64 until; // CLOCK_MONOTONIC, nanoseconds: nothing is carried after it; 0: no such time
	__u64 held_back; // packets that were dropped until their flow had caught up
} settings = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct key);
	__type(value, struct entry);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} reports SEC(".maps");

// The ports at the start of TCP and UDP.
struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline void new_sum(__sum16 *sum, __u32 before, __u32 after)
{
	// RFC 1624, eqn. 3; both values are at most two 16-bit words.
	__u32 total = (__u16)~*sum;
	total += (__u16)~before + (__u16)~(before >> 16);
	total += (__u16)after + (after >> 16);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	*sum = (__u16)~total;
}

// Whether the flow's idle time is over. The engine ends such flows; with no daemon nobody does, and
// what has timed out must not go on. Nearly always the first comparison is all.
static __always_inline int is_over(const struct entry *entry, const struct counter *counter, __u64 now)
{
	__s64 limit = (__s64)entry->idle * 1000000; // signed: either clock may be ahead a little
	if ((__s64)(now - counter->used) <= limit)
		return 0;
	__u32 other = entry->counter ^ 1;
	const struct counter *back = bpf_map_lookup_elem(&counters, &other);
	return !back || (__s64)(now - back->used) > limit;
}

// Whether a sequence number is what is expected, or a little beyond it, as the engine has it
// (`sequence.py`). What is unknown fits.
static __always_inline int follows(__be32 number, __u32 expected)
{
	return !expected || bpf_ntohl(number) - expected <= WINDOW;
}

// The kernel's own answer to where a packet goes: its next hop in `ipv4_dst`.
static __always_inline long find_way(struct __sk_buff *skb, struct bpf_fib_lookup *way)
{
	__u32 lacking = settings.lacking;
	*(__u32 *)way->smac = skb->mark;
	long found = bpf_fib_lookup(skb, way, sizeof(*way), lacking ? 0 : BY_MARK | NO_NEIGHBOUR);
	if (found == -EINVAL && !lacking)
		settings.lacking = 1; // this packet goes up, the next one asks for less
	return found;
}

// Whether a UDP checksum cannot be one that a device has yet to finish: that is the sum of the
// pseudo header alone. (Of a tunnel's packet it may be what is inside that is unfinished.)
static __always_inline int is_finished(const struct iphdr *ip, const struct udphdr *udp)
{
	__u32 sum = (ip->saddr & 0xffff) + (ip->saddr >> 16) + (ip->daddr & 0xffff) +
		    (ip->daddr >> 16) + bpf_htons(IPPROTO_UDP) + udp->len;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum != udp->check;
}

// A packet of an entry goes up, in its place behind those that did before it.
static __always_inline int go_up(struct __sk_buff *skb, struct entry *entry, struct counter *counter,
				 __u64 now, __u32 segments, int is_fragment)
{
	__u32 up = counter->up, handled = counter->handled, next = (up + 1) & NUMBERS;
	__u32 time = now >> 20;
	if (is_fragment || segments > MOST_SEGMENTS) { // a fragment loses its timestamp on the way
		counter->up = next;
		return TC_ACT_OK;
	}
	if (up == handled || !entry->waiting || time - entry->last > WAIT) {
		entry->waiting = entry->marked = time;
		entry->mark = next;
	} else if ((__s32)((handled - entry->mark) << 16) >= 0) {
		entry->marked = time;
		entry->mark = next;
	} else if (time - entry->waiting > WAIT && time - entry->marked > LATENCY) {
		if (time - entry->last < PROBE) {
			entry->mark = up; // it has caught up when the last one's verdict is known
			__sync_fetch_and_add(&settings.held_back, 1);
			return TC_ACT_SHOT;
		}
		entry->mark = next; // the last one may have been lost
	}
	entry->last = time;
	counter->up = next;
	skb->tstamp = STAMPS + ((__u64)entry->counter << 24 | segments << 16 | next) * 1000;
	return TC_ACT_OK;
}

static __always_inline int carry(struct __sk_buff *skb, __u8 side)
{
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_OK; // another host's, or another interface's
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return TC_ACT_OK;
	__u32 header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip) || ip->frag_off & bpf_htons(OFFSET) || ip->ttl <= 1)
		return TC_ACT_OK;
	struct ports *ports = (void *)ip + header;
	if ((void *)(ports + 1) > end)
		return TC_ACT_OK;
	int is_fragment = ip->frag_off & bpf_htons(FRAGMENT);
	int goes_up = is_fragment || ip->ihl != NO_OPTIONS;

	struct key key = {
		.source = ip->saddr,
		.destination = ip->daddr,
		.source_port = ports->source,
		.destination_port = ports->destination,
		.protocol = ip->protocol,
		.side = side,
	};
	__u32 total = bpf_ntohs(ip->tot_len);
	if (total + ETH_HLEN > skb->len || total < sizeof(*ip) + sizeof(struct udphdr))
		return TC_ACT_OK; // cut short

	__u8 flags = 0, all;
	__be32 sequence = 0, acknowledged = 0;
	__u32 headers = header, sum_at = 0;
	int is_simple = 0; // a checksum to update here, whatever the device is to do
	if (key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP)
		return TC_ACT_OK;
	if (goes_up) {
		// Behind the ports nothing is looked at but what TCP acknowledges.
		struct tcphdr *tcp = (void *)ports;
		if (key.protocol == IPPROTO_TCP && (void *)(tcp + 1) <= end &&
		    header + sizeof(*tcp) <= total && tcp->ack && !tcp->syn && !tcp->rst)
			acknowledged = tcp->ack_seq;
	} else if (key.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end)
			return TC_ACT_OK;
		headers = sizeof(*ip) + tcp->doff * 4;
		if (tcp->doff < 5 || headers > total)
			return TC_ACT_OK;
		goes_up = tcp->syn && !tcp->ack;
		flags = ANY | (tcp->rst ? RST : 0) | (tcp->syn ? SYN : 0) | (tcp->fin ? FIN : 0);
		sequence = tcp->seq;
		acknowledged = tcp->ack ? tcp->ack_seq : 0;
		sum_at = ETH_HLEN + sizeof(*ip) + offsetof(struct tcphdr, check);
	} else {
		struct udphdr *udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return TC_ACT_OK;
		headers = sizeof(*ip) + sizeof(*udp);
		__u32 length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp) || length > total - sizeof(*ip))
			return TC_ACT_OK;
		sum_at = ETH_HLEN + sizeof(*ip) + offsetof(struct udphdr, check);
		is_simple = !udp->check || is_finished(ip, udp);
	}

	all = flags;

	struct entry *entry = bpf_map_lookup_elem(&entries, &key);
	if (!entry)
		return TC_ACT_OK;
	__u32 index = entry->counter;
	struct counter *counter = bpf_map_lookup_elem(&counters, &index);
	if (!counter)
		return TC_ACT_OK;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 until = settings.until;
	__u32 segments = skb->gso_segs, size = skb->gso_size;
	if (!segments) // of what a virtual machine's device makes the kernel counts them later
		segments = size && total > headers ? (total - headers + size - 1) / size : 1;
	if (is_over(entry, counter, now) || (until && now > until))
		return TC_ACT_OK;
	// A tunnel's checksum that is finished (what is inside is not) may be just what an unfinished one
	// would be, and is that for every packet of one length then. The flow's others tell, and the kernel
	// knows which it is. Of several segments the outer one is never finished.
	if (is_simple && !(entry->seen & SUM))
		entry->seen |= SUM;
	else if (key.protocol == IPPROTO_UDP && !is_simple && entry->seen & SUM && !size)
		goes_up = 1;

	// A daemon that has left has given its last verdict: what waits then is lost.
	if (goes_up || (counter->up != counter->handled && !until))
		goto up;
	__be32 address = entry->address;
	__be16 port = entry->port;

	__u8 tos = ip->tos;
	__u16 from = skb->ingress_ifindex;
	__u32 segment = size ? headers + size : total, time = now >> 20;
	union way_out out = {.word = entry->way.word};
	if (segment <= entry->mtu && time - entry->looked < FRESH && tos == entry->tos &&
	    from == entry->from && !skb->mark)
		goto known;

	// The way out, as the kernel's own forwarding would find it. It routes before the source is
	// translated, and after the destination is.
	struct bpf_fib_lookup way = {
		.family = AF_INET,
		.tos = tos,
		.l4_protocol = key.protocol,
		.sport = key.source_port,
		.dport = side == FROM_OUTSIDE ? port : key.destination_port,
		.tot_len = segment,
		.ifindex = skb->ingress_ifindex,
		.ipv4_src = key.source,
		.ipv4_dst = side == FROM_OUTSIDE ? address : key.destination,
	};
	long found = find_way(skb, &way);
	if ((found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	    way.family == AF_INET) {
		out.interface = way.ifindex;
		out.next_hop = way.ipv4_dst;
		if ((out.interface == settings.outside_interface) != entry->to_outside)
			goto up;
		entry->way.word = out.word; // at once; for a packet on another processor the rest may be older
		entry->tos = tos;
		entry->from = from;
		entry->mtu = way.tot_len; // the way's, or what was asked about
		entry->looked = skb->mark ? time - FRESH : time; // an answer for a mark is for that packet alone
	} else if (found == BPF_FIB_LKUP_RET_FWD_DISABLED && until && out.interface) {
		// The daemon has put the interfaces back as they were, and the next one is awaited.
		__u32 mtu = 0;
		if (bpf_check_mtu(skb, out.interface, &mtu, 0, 0) || segment > mtu)
			goto up;
	} else {
		goto up; // too large, no route: the kernel knows what to do
	}

known:;
	// A segment that is not what it seems changes nothing: an answer to the SYN that acknowledges
	// something else goes up to the engine, and an RST that its receiver ignores just passes.
	flags &= ~entry->seen;
	if (flags & (ANY | RST)) {
		__u32 opposite = index ^ 1;
		struct counter *other = bpf_map_lookup_elem(&counters, &opposite);
		if (!other)
			goto up;
		if (flags & ANY) {
			if (counter->acknowledged && !(acknowledged && follows(acknowledged, counter->acknowledged)))
				goto up;
			if (all & SYN)
				other->acknowledged = bpf_ntohl(sequence) + 1;
		} else if (!follows(sequence, other->acknowledged)) {
			flags &= ~RST;
		}
	}
	if (flags) {
		struct report *report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);
		if (!report)
			goto up; // nobody reads: the engine sees the packet itself
		report->flow = entry->flow;
		report->when = now;
		report->counter = index;
		report->flags = flags;
		report->reverse = entry->reverse;
		// The engine looks by itself, every few packets; waking it for each would cost more.
		bpf_ringbuf_submit(report, BPF_RB_NO_WAKEUP);
		entry->seen |= flags; // two processors at once: reported twice, which changes nothing
	}

	__sync_fetch_and_add(&counter->packets, segments);
	__sync_fetch_and_add(&counter->bytes, total + (segments - 1) * headers);
	counter->used = now;
	if (acknowledged && !(all & (SYN | RST)))
		counter->acknowledged = bpf_ntohl(acknowledged);

	__be32 old_address = side == FROM_INSIDE ? key.source : key.destination;
	__be16 old_port = side == FROM_INSIDE ? key.source_port : key.destination_port;
	// The helper knows of checksums that the device has yet to finish, where ports do not count.
	__u64 zero = key.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (address != old_address && !is_simple)
		bpf_l4_csum_replace(skb, sum_at, old_address, address,
				    BPF_F_PSEUDO_HDR | zero | sizeof(address));
	if (port != old_port && !is_simple)
		bpf_l4_csum_replace(skb, sum_at, old_port, port, zero | sizeof(port));
	if (total + ETH_HLEN < skb->len && bpf_skb_change_tail(skb, total + ETH_HLEN, 0))
		return TC_ACT_SHOT; // padding of a short frame, which is no part of the packet

	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end)
		return TC_ACT_SHOT; // the checksum is another one already; cannot be
	if (is_simple && udp->check) {
		// What the driver summed up, if it did, changes by the checksum (the address's change
		// and that of IP's own checksum cancel out).
		__u64 sum = (__u64)old_address + (__u32)~address;
		bpf_csum_update(skb, (__u32)sum + (__u32)(sum >> 32));
		new_sum(&udp->check, old_address, address);
		new_sum(&udp->check, old_port, port);
		if (!udp->check)
			udp->check = 0xffff;
	}
	if (side == FROM_INSIDE) {
		ip->saddr = address;
		udp->source = port;
	} else {
		ip->daddr = address;
		udp->dest = port;
	}
	new_sum(&ip->check, old_address, address);
	__u16 *word = (void *)&ip->ttl, before = *word;
	ip->ttl--;
	new_sum(&ip->check, before, *word);
	// As the kernel has it for what it forwards, by the TOS: 0, 2 (bulk), 6 (interactive), 4 (both).
	skb->priority = 0x4620 >> (tos >> 3 & 3) * 4 & 0xf;
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = out.next_hop};
	return bpf_redirect_neigh(out.interface, &next, sizeof(next), 0);

up:
	if (acknowledged && !(all & (SYN | RST)) && entry->seen & ANY)
		counter->acknowledged = bpf_ntohl(acknowledged);
	// TCP goes up in one piece, everything else in segments.
	return go_up(skb, entry, counter, now, key.protocol == IPPROTO_UDP ? segments : 1, is_fragment);
}

SEC("tc")
int from_inside(struct __sk_buff *skb)
{
	return carry(skb, FROM_INSIDE);
}

SEC("tc")
int from_outside(struct __sk_buff *skb)
{
	return carry(skb, FROM_OUTSIDE);
}

char _license[] SEC("license") = "Dual MIT/GPL";
