/*
 * TCP clients and the server that they talk to, in C so that their own cost is small:
 *
 *   clients serve PORT                                echoes whatever comes, to many at once
 *   clients connect ADDRESS ADDRESSES PORT SECONDS    connect, one byte there and back, close; one at
 *                                                     a time, in turn to ADDRESSES addresses from
 *                                                     ADDRESS on (a SNAT port is used once toward each)
 *   clients ask ADDRESS PORT SECONDS                  one byte there and back on one connection
 *
 * The clients print one JSON object; times are microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SAMPLES = 4000000 };

static void die(const char *what) { perror(what); exit(1); }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

_Noreturn static void serve(int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            char data[4096];
            if (fd == listener) {
                int guest = accept(listener, 0, 0);
                if (guest < 0) continue;
                setsockopt(guest, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event.data.fd = guest;
                epoll_ctl(poll, EPOLL_CTL_ADD, guest, &event);
                continue;
            }
            ssize_t size = read(fd, data, sizeof data);
            if (size <= 0 || write(fd, data, size) != size) close(fd);
        }
    }
}

static int open_connection(uint32_t host, int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 5};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(host)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (void *)&address, sizeof address)) {
        int reason = errno;
        close(fd);
        errno = reason;
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static int exchange(int fd) {
    char byte = 'x';
    errno = 0;  // the other end may also close: that is no error
    return write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static char why[160]; /* the last failure */

static void report(float *samples, int count, int failed, double seconds) {
    qsort(samples, count, sizeof *samples, compare);
    printf("{\"count\": %d, \"failed\": %d, \"seconds\": %.6f, \"p50\": %.2f, \"p99\": %.2f, "
           "\"max\": %.2f, \"why\": \"%s\"}\n", count, failed, seconds, count ? samples[count / 2] : 0,
           count ? samples[(int)(count * 0.99)] : 0, count ? samples[count - 1] : 0, why);
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "serve")) serve(atoi(arguments[2]));
    int connecting = count == 6 && !strcmp(arguments[1], "connect");
    if (!connecting && !(count == 5 && !strcmp(arguments[1], "ask"))) {
        fprintf(stderr, "usage: see the head of clients.c\n");
        return 2;
    }
    uint32_t host = ntohl(inet_addr(arguments[2]));
    int hosts = connecting ? atoi(arguments[3]) : 1, port = atoi(arguments[count - 2]);
    double limit = atof(arguments[count - 1]), start = now_s(), now = start;
    float *samples = malloc(MAX_SAMPLES * sizeof *samples);
    int done = 0, failed = 0, fd = -1;
    if (!connecting && (fd = open_connection(host, port)) < 0) die("connect");
    for (unsigned turn = 0; now - start < limit && done < MAX_SAMPLES && failed < 10; turn++) {
        double before = now;
        if (connecting) fd = open_connection(host + turn % hosts, port);
        int opened = fd >= 0, well = opened && exchange(fd), reason = errno;
        if (connecting && fd >= 0) close(fd);
        now = now_s();
        if (well) samples[done++] = (now - before) * 1e6;
        else {
            failed++;
            snprintf(why, sizeof why, "turn %u, %s: %s after %.3f s", turn,
                     opened ? "exchange" : "connect", reason ? strerror(reason) : "closed",
                     now - before);
        }
    }
    report(samples, done, failed, now - start);
    return 0;
}
