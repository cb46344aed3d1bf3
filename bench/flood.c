/*
 * The load of the benchmark: UDP datagrams or TCP SYNs of many flows, as fast as the gateway takes
 * them without losing any, or at a given rate.
 *
 * One process stands in two network namespaces. It sends whole frames from a packet socket in one
 * and reads the packet counter of an interface in another, so that it knows how many arrived and
 * keeps at most --window of them under way: the rate it reports is one at which nothing is lost.
 * With --reply it first sends one packet per flow, learns what the flow looks like on the far side
 * (translated or not), and then sends the answers back instead.
 *
 * With --drain PID it stops that process, lets a burst of packets wait in the kernel for it, lets it
 * go on until all have arrived, and takes the processor time that it used: what a packet costs the
 * process that forwards it, with no part of the sender in it; the sender's own processor time for the
 * burst is what the kernel's queue costs its side. The figures are the first decile of the bursts: whatever else the machine does can
 * only add to them.
 *
 * It prints one JSON object. Nothing here waits for ever: every wait ends after STALL nanoseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, FRAME = 60, MAX_FLOWS = 1 << 20, BURST = 4000, MAX_BURSTS = 4096 };
#define STALL 1000000000ull /* ns without progress after which what is under way counts as lost */

struct flow { uint32_t source, destination; uint16_t source_port, destination_port; };
struct side { const char *netns, *interface; uint8_t mac[6]; int socket, counter; };

static struct flow flows[MAX_FLOWS];
static int protocol = IPPROTO_UDP, length = 46; /* of the IP packet: 64 bytes on Ethernet */

static void die(const char *what) { perror(what); exit(1); }

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* Nanoseconds of processor time that this process has had, with what the kernel does inside it. */
static uint64_t own_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* The same of another process (its first thread): exact once it sleeps. */
static uint64_t used_ns(int schedstat) {
    char text[128] = {0};
    if (pread(schedstat, text, sizeof text - 1, 0) <= 0) die("schedstat");
    return strtoull(text, 0, 10);
}

static void enter(struct side *side) {
    int namespace = open(side->netns, O_RDONLY);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET)) die(side->netns);
    close(namespace);
    int index = if_nametoindex(side->interface);
    if (!index) die(side->interface);
    side->socket = socket(AF_PACKET, SOCK_RAW, 0); /* receives nothing */
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = index};
    if (side->socket < 0 || bind(side->socket, (void *)&address, sizeof address)) die("bind");
    int on = 1;
    setsockopt(side->socket, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
    side->counter = open("/proc/thread-self/net/dev", O_RDONLY);
    if (side->counter < 0) die("/proc/thread-self/net/dev");
}

/* Packets that came in by the side's interface, ever. */
static uint64_t arrived(struct side *side) {
    char text[4096], name[IFNAMSIZ + 3];
    ssize_t size = pread(side->counter, text, sizeof text - 1, 0);
    if (size < 0) die("/proc/net/dev");
    text[size] = 0;
    snprintf(name, sizeof name, "%s:", side->interface);
    char *line = strstr(text, name);
    unsigned long long bytes, packets;
    if (!line || sscanf(line + strlen(name), "%llu %llu", &bytes, &packets) != 2) die("counter");
    return packets;
}

static uint32_t sum(const uint8_t *data, int size, uint32_t total) {
    for (int i = 0; i + 1 < size; i += 2) total += data[i] << 8 | data[i + 1];
    return size & 1 ? total + (data[size - 1] << 8) : total;
}

static uint16_t fold(uint32_t total) {
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return ~total & 0xffff;
}

static void put(uint8_t *at, uint16_t value) { at[0] = value >> 8; at[1] = value; }

static void build(uint8_t *frame, const struct flow *flow, const uint8_t *mac) {
    uint8_t *ip = frame + 14, *l4 = ip + 20;
    int rest = length - 20;
    memset(frame, 0, FRAME);
    memcpy(frame, mac, 6);
    memcpy(frame + 6, "\x02\x00\x00\x00\x00\xfe", 6);
    put(frame + 12, ETHERTYPE_IP);
    ip[0] = 0x45;
    put(ip + 2, length);
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, &flow->source, 4);
    memcpy(ip + 16, &flow->destination, 4);
    put(ip + 10, fold(sum(ip, 20, 0)));
    memcpy(l4, &flow->source_port, 2);
    memcpy(l4 + 2, &flow->destination_port, 2);
    if (protocol == IPPROTO_UDP) put(l4 + 4, rest);
    else { l4[12] = 0x50; l4[13] = 0x02; put(l4 + 14, 64000); }
    uint16_t check = fold(sum(l4, rest, sum(ip + 12, 8, protocol + rest)));
    put(l4 + (protocol == IPPROTO_UDP ? 6 : 16), check ? check : 0xffff);
}

/* Send each flow's first packet from near, and turn the flows round as far sees them. */
static void learn(struct side *near, struct side *far, int count) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
                                  .sll_ifindex = if_nametoindex(far->interface)};
    int ear = socket(AF_PACKET, SOCK_RAW, 0), lost = 0;
    struct timeval patience = {.tv_sec = 1};
    if (ear < 0 || bind(ear, (void *)&address, sizeof address)) die("bind");
    setsockopt(ear, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int i = 0; i < count; i++) {
        uint8_t frame[FRAME], seen[2048];
        build(frame, &flows[i], near->mac);
        if (send(near->socket, frame, FRAME, 0) < 0) die("send");
        for (;;) {
            ssize_t size = recv(ear, seen, sizeof seen, 0);
            if (size < 0) {
                if (lost++ > 3) { fprintf(stderr, "flood: flow %d does not arrive\n", i); exit(1); }
                i--;
                break;
            }
            if (size < 42 || seen[23] != protocol || memcmp(seen + 30, &flows[i].destination, 4) ||
                memcmp(seen + 36, &flows[i].destination_port, 2)) continue;
            struct flow answer = {flows[i].destination, 0, flows[i].destination_port, 0};
            memcpy(&answer.destination, seen + 26, 4);
            memcpy(&answer.destination_port, seen + 34, 2);
            flows[i] = answer;
            break;
        }
    }
    close(ear);
}

/* Send a number of packets, the flows in turn. Returns how many went. */
static int send_frames(int fd, uint8_t (*frames)[FRAME], int count, uint64_t *next, int batch) {
    struct mmsghdr messages[BATCH] = {0};
    struct iovec pieces[BATCH];
    size_t size = FRAME < length + 14 ? FRAME : length + 14;
    uint64_t first = *next;
    for (int i = 0; i < batch; i++) {
        pieces[i] = (struct iovec){frames[(first + i) % count], size};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
    int done = sendmmsg(fd, messages, batch, 0);
    if (done < 0) die("sendmmsg");
    *next = (first + done) % count;
    return done;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int drain(struct side *from, struct side *to, uint8_t (*frames)[FRAME], int count, pid_t pid,
                 double seconds) {
    static double filling[MAX_BURSTS], draining[MAX_BURSTS];
    uint64_t next = 0, lost = 0, end = now_ns() + (uint64_t)(seconds * 1e9);
    int bursts = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    int schedstat = open(path, O_RDONLY);
    if (schedstat < 0) die(path);
    for (int tries = 0; (now_ns() < end || (!bursts && tries < 5)) && bursts < MAX_BURSTS; tries++) {
        uint64_t before = arrived(to), seen = before, progress;
        if (kill(pid, SIGSTOP)) die("SIGSTOP");
        usleep(2000); /* it ends what it is at */
        uint64_t used = used_ns(schedstat), start = own_ns();
        for (int sent = 0; sent < BURST;)
            sent += send_frames(from->socket, frames, count, &next,
                                BURST - sent < BATCH ? BURST - sent : BATCH);
        uint64_t filled = own_ns(), begin = now_ns(), last = begin;
        if (kill(pid, SIGCONT)) die("SIGCONT");
        for (progress = begin; seen < before + BURST && last - progress < STALL; usleep(20)) {
            uint64_t now_seen = arrived(to);
            last = now_ns();
            if (now_seen != seen) { seen = now_seen; progress = last; }
        }
        if (seen < before + BURST) { lost += before + BURST - seen; continue; }
        filling[bursts] = (filled - start) / 1e3 / BURST;
        usleep(1000); /* it falls asleep */
        draining[bursts++] = (used_ns(schedstat) - used) / 1e3 / BURST;
    }
    qsort(filling, bursts, sizeof *filling, compare);
    qsort(draining, bursts, sizeof *draining, compare);
    printf("{\"bursts\": %d, \"lost\": %llu, \"filling\": %.4f, \"draining\": %.4f}\n", bursts,
           (unsigned long long)lost, filling[bursts / 10], draining[bursts / 10]);
    return 0;
}

static void parse_mac(const char *text, uint8_t *mac) {
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4,
               mac + 5) != 6) { fprintf(stderr, "flood: %s is no MAC address\n", text); exit(2); }
}

int main(int count_arguments, char **arguments) {
    struct side near = {0}, far = {0};
    uint32_t source = 0, destination = 0;
    int count = 1, per_source = 0, per_destination = 0, first_port = 1024, reply = 0, once = 0, window = 2048;
    double seconds = 1, warmup = 0.1, rate = 0;
    enum { NEAR, FAR, NEAR_MAC, FAR_MAC, SYN, SOURCE, TO, FLOWS, PER_SOURCE, PER_DESTINATION, FIRST_PORT, REPLY, ONCE,
           WINDOW, SECONDS, WARMUP, RATE, DRAIN };
    pid_t pid = 0;
    static const struct option options[] = {
        {"near", 1, 0, NEAR}, {"far", 1, 0, FAR}, {"near-mac", 1, 0, NEAR_MAC},
        {"far-mac", 1, 0, FAR_MAC}, {"syn", 0, 0, SYN}, {"source", 1, 0, SOURCE},
        {"to", 1, 0, TO}, {"flows", 1, 0, FLOWS}, {"per-source", 1, 0, PER_SOURCE},
        {"per-destination", 1, 0, PER_DESTINATION},
        {"first-port", 1, 0, FIRST_PORT}, {"reply", 0, 0, REPLY}, {"once", 0, 0, ONCE},
        {"window", 1, 0, WINDOW}, {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP},
        {"rate", 1, 0, RATE}, {"drain", 1, 0, DRAIN}, {0}};
    for (int choice; (choice = getopt_long(count_arguments, arguments, "", options, 0)) >= 0;) {
        switch (choice) {
        case NEAR: near.netns = strtok(optarg, ","); near.interface = strtok(0, ","); break;
        case FAR: far.netns = strtok(optarg, ","); far.interface = strtok(0, ","); break;
        case NEAR_MAC: parse_mac(optarg, near.mac); break;
        case FAR_MAC: parse_mac(optarg, far.mac); break;
        case SYN: protocol = IPPROTO_TCP; length = 40; break;
        case SOURCE: source = ntohl(inet_addr(optarg)); break;
        case TO: destination = inet_addr(optarg); break;
        case FLOWS: count = atoi(optarg); break;
        case PER_SOURCE: per_source = atoi(optarg); break;
        case PER_DESTINATION: per_destination = atoi(optarg); break;
        case FIRST_PORT: first_port = atoi(optarg); break;
        case REPLY: reply = 1; break;
        case ONCE: once = 1; warmup = 0; break;
        case WINDOW: window = atoi(optarg); break;
        case SECONDS: seconds = atof(optarg); break;
        case WARMUP: warmup = atof(optarg); break;
        case RATE: rate = atof(optarg); break;
        case DRAIN: pid = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!near.interface || !far.interface || count < 1 || count > MAX_FLOWS || optind < count_arguments) {
        fprintf(stderr, "flood: --near NETNS,IF and --far NETNS,IF, 1 to %d --flows\n", MAX_FLOWS);
        return 2;
    }
    /* Distinct source ports, whatever the source: a port of the translator can then be kept. */
    if (!per_destination) per_destination = count;
    for (int i = 0; i < count; i++) {
        int j = i % per_destination;
        flows[i] = (struct flow){htonl(source + (per_source ? j / per_source : 0)),
                                 htonl(ntohl(destination) + i / per_destination),
                                 htons(first_port + j), htons(9)};
    }
    enter(&near);
    enter(&far);
    if (reply) learn(&near, &far, count);
    struct side *from = reply ? &far : &near, *to = reply ? &near : &far;

    uint8_t(*frames)[FRAME] = malloc((size_t)count * FRAME);
    if (!frames) die("malloc");
    for (int i = 0; i < count; i++) build(frames[i], &flows[i], from->mac);
    if (pid) return drain(from, to, frames, count, pid, seconds);

    uint64_t base = arrived(to), sent = 0, lost = 0, got = 0, next = 0;
    uint64_t start = now_ns(), begin = start + (uint64_t)(warmup * 1e9), progress = start;
    uint64_t end = begin + (uint64_t)(seconds * 1e9), now = start, last = start;
    uint64_t sent_before = 0, got_before = 0, lost_before = 0, own = own_ns();
    int measuring = !warmup;
    while (now < end && !(once && sent == (uint64_t)count)) {
        int batch = BATCH;
        if (once && (uint64_t)count - sent < BATCH) batch = count - sent;
        if (!rate || (double)sent < rate * (double)(now - start) / 1e9) {
            sent += send_frames(from->socket, frames, count, &next, batch);
        } else usleep(50);
        for (;;) {
            uint64_t seen = arrived(to) - base;
            now = now_ns();
            if (seen != got) { got = seen; progress = last = now; }
            if (sent <= got + lost + window || rate || now >= end) break;
            if (now - progress > STALL) { lost = sent - got; progress = now; break; }
            usleep(20);
        }
        if (!measuring && now >= begin) {
            measuring = 1;
            sent_before = sent; got_before = got; lost_before = lost; begin = now;
            own = own_ns();
        }
    }
    uint64_t got_in_time = got, until = now;
    own = own_ns() - own;
    for (progress = now; got + lost < sent && now - progress < STALL; usleep(100)) { /* stragglers */
        uint64_t seen = arrived(to) - base;
        now = now_ns();
        if (seen != got) { got = seen; progress = last = now; }
    }
    lost = sent > got ? sent - got : 0;
    if (once) { got_in_time = got; until = last; }
    printf("{\"sent\": %llu, \"received\": %llu, \"seconds\": %.6f, \"lost\": %llu, "
           "\"processor\": %.6f}\n", (unsigned long long)(sent - sent_before), (unsigned long long)(got_in_time - got_before),
           (until - begin) / 1e9, (unsigned long long)(lost > lost_before ? lost - lost_before : 0), own / 1e9);
    return 0;
}
