// The fast path: carries out, in the kernel, what the engine decided when a flow opened.
//
// Attached to tc ingress of the inside interfaces (`from_inside`) and of the outside one
// (`from_outside`). A packet whose five-tuple has an entry is rewritten, counted and redirected.
// Everything else goes up unchanged, into the packet queue: unknown flows, fragments, IP options,
// TTL 1, a SYN that opens, what is larger than the way out allows, and whatever does not look as it should.
// The map is a cache of decisions: an empty one is slower, never wrong.
//
// It touches packet headers only, so it needs neither BTF nor CO-RE.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define FRAGMENT 0x3fff // more fragments, or an offset
#define NO_OPTIONS 5

enum { FROM_INSIDE = 0, FROM_OUTSIDE = 1 };
enum { FIN = 1, SYN = 2, RST = 4 }; // as in the TCP header, and as the engine has them

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

// How it left last, for the time in which the interfaces do not forward any more (`settings.until`).
union way_out {
	struct {
		__u32 interface; // 0: never
		__u8 destination[ETH_ALEN];
		__u8 source[ETH_ALEN];
	};
	__u64 words[2];
};

// What becomes of it. `address` and `port` replace the source's (from inside) or the
// destination's (from outside); they are those of the packet itself where nothing is translated.
struct entry {
	__u64 flow;    // the engine's number of the flow
	__u32 counter; // index into `counters`
	__be32 address;
	__be16 port;
	__u8 reverse;      // the second of the flow's two directions
	__u8 to_outside;   // it must leave by the outside interface, else by any other
	__u32 seen;        // FIN, SYN (with ACK), RST: seen and reported
	__u32 idle;        // milliseconds after which the flow is over, whoever is there to end it
	__u32 unused;
	__u64 since;       // CLOCK_MONOTONIC, nanoseconds: when it was installed
	union way_out way;
};

struct counter {
	__u64 packets;
	__u64 bytes; // of IP, whole packets; a segmentation-offloaded one counts as its segments
	__u64 used;  // CLOCK_MONOTONIC (coarse), nanoseconds
	__u64 unused;
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
	__u32 unused;
	__u64 until; // CLOCK_MONOTONIC, nanoseconds: nothing is carried after it; 0: no such time
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
	if ((__s64)(now - counter->used) <= limit || (__s64)(now - entry->since) <= limit)
		return 0;
	__u32 other = entry->counter ^ 1;
	const struct counter *back = bpf_map_lookup_elem(&counters, &other);
	return !back || (__s64)(now - back->used) > limit;
}

static __always_inline int carry(struct __sk_buff *skb, __u8 side)
{
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	if (bpf_skb_pull_data(skb, 0))
		return TC_ACT_OK;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct ports *ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > end)
		return TC_ACT_OK;
	if (ip->version != 4 || ip->ihl != NO_OPTIONS || ip->frag_off & bpf_htons(FRAGMENT) ||
	    ip->ttl <= 1)
		return TC_ACT_OK;

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

	__u8 flags = 0;
	__u32 headers, sum_at;
	if (key.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end)
			return TC_ACT_OK;
		headers = sizeof(*ip) + tcp->doff * 4;
		if ((tcp->syn && !tcp->ack) || tcp->doff < 5 || headers > total)
			return TC_ACT_OK;
		flags = (tcp->rst ? RST : 0) | (tcp->syn ? SYN : 0) | (tcp->fin ? FIN : 0);
		sum_at = ETH_HLEN + sizeof(*ip) + offsetof(struct tcphdr, check);
	} else if (key.protocol == IPPROTO_UDP) {
		struct udphdr *udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return TC_ACT_OK;
		headers = sizeof(*ip) + sizeof(*udp);
		__u32 length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp) || length > total - sizeof(*ip))
			return TC_ACT_OK;
		sum_at = ETH_HLEN + sizeof(*ip) + offsetof(struct udphdr, check);
	} else {
		return TC_ACT_OK;
	}

	struct entry *entry = bpf_map_lookup_elem(&entries, &key);
	if (!entry)
		return TC_ACT_OK;
	__u32 index = entry->counter;
	struct counter *counter = bpf_map_lookup_elem(&counters, &index);
	if (!counter)
		return TC_ACT_OK;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 until = settings.until;
	if (is_over(entry, counter, now) || (until && now > until))
		return TC_ACT_OK;
	__be32 address = entry->address;
	__be16 port = entry->port;

	// The way out, as the kernel's own forwarding would find it, with the neighbour's address.
	__u32 segment = skb->gso_size ? headers + skb->gso_size : total;
	struct bpf_fib_lookup way = {
		.family = AF_INET,
		.tos = ip->tos,
		.l4_protocol = key.protocol,
		.tot_len = segment,
		.ifindex = skb->ingress_ifindex,
		.ipv4_src = side == FROM_INSIDE ? address : key.source,
		.ipv4_dst = side == FROM_OUTSIDE ? address : key.destination,
	};
	union way_out out;
	long found = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	if (found == BPF_FIB_LKUP_RET_SUCCESS) {
		out.interface = way.ifindex;
		__builtin_memcpy(out.destination, way.dmac, ETH_ALEN);
		__builtin_memcpy(out.source, way.smac, ETH_ALEN);
		if ((out.interface == settings.outside_interface) != entry->to_outside)
			return TC_ACT_OK;
		if (out.words[0] != entry->way.words[0] || out.words[1] != entry->way.words[1])
			entry->way = out;
	} else if (found == BPF_FIB_LKUP_RET_FWD_DISABLED && until && entry->way.interface) {
		// The daemon has put the interfaces back as they were, and the next one is awaited.
		out = entry->way;
		__u32 mtu = 0;
		if (bpf_check_mtu(skb, out.interface, &mtu, 0, 0) || segment > mtu)
			return TC_ACT_OK;
	} else {
		return TC_ACT_OK; // no neighbour yet, too large, no route: the kernel knows what to do
	}

	flags &= ~entry->seen;
	if (flags) {
		struct report *report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);
		if (!report)
			return TC_ACT_OK; // nobody reads: the engine sees the packet itself
		report->flow = entry->flow;
		report->when = now;
		report->counter = index;
		report->flags = flags;
		report->reverse = entry->reverse;
		// The engine looks by itself, every few packets; waking it for each would cost more.
		bpf_ringbuf_submit(report, BPF_RB_NO_WAKEUP);
		entry->seen |= flags; // two processors at once: reported twice, which changes nothing
	}

	__u32 size = total, packets = 1;
	if (skb->gso_segs > 1) {
		packets = skb->gso_segs;
		size += (packets - 1) * headers;
	}
	__sync_fetch_and_add(&counter->packets, packets);
	__sync_fetch_and_add(&counter->bytes, size);
	counter->used = now;

	__be32 old_address = side == FROM_INSIDE ? key.source : key.destination;
	__be16 old_port = side == FROM_INSIDE ? key.source_port : key.destination_port;
	// The helper knows of checksums that the device has yet to finish, where ports do not count.
	__u64 zero = key.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (address != old_address)
		bpf_l4_csum_replace(skb, sum_at, old_address, address,
				    BPF_F_PSEUDO_HDR | zero | sizeof(address));
	if (port != old_port)
		bpf_l4_csum_replace(skb, sum_at, old_port, port, zero | sizeof(port));

	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	ip = data + ETH_HLEN;
	ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > end)
		return TC_ACT_SHOT; // the checksum is another one already; cannot be
	if (side == FROM_INSIDE) {
		ip->saddr = address;
		ports->source = port;
	} else {
		ip->daddr = address;
		ports->destination = port;
	}
	new_sum(&ip->check, old_address, address);
	__u16 *word = (void *)&ip->ttl, before = *word;
	ip->ttl--;
	new_sum(&ip->check, before, *word);
	__builtin_memcpy(ethernet->h_dest, out.destination, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, out.source, ETH_ALEN);
	return bpf_redirect(out.interface, 0);
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
