// A fake of vLLM's OpenAI server: exact token times at almost no CPU.
//
// Token i leaves at ttft + i * itl after the request came, on an absolute schedule, each in its own write.
#define _GNU_SOURCE
#include "engine_requests.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>

#define READ_BYTES 65536

static void conn_free(struct conn *c) {
    if (is_unfinished(c)) engine.aborted++;
    if (c->phase == WAITING || c->phase == ANSWERING) request_end(c);
    close(c->fd);
    buffer_free(&c->in);
    buffer_free(&c->body);
    buffer_free(&c->out);
    buffer_free(&c->answer.event);
    free(c);
    engine.connections--;
}

static void conn_read(struct conn *c, bool to_the_end) {
    static char bytes[READ_BYTES];
    ssize_t n;
    do {
        n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n > 0) buffer_add(&c->in, bytes, (size_t)n);
        // A short read has emptied the socket; only an end can follow, and that has its own event.
    } while (n == (ssize_t)sizeof bytes || (n > 0 && to_the_end) || (n < 0 && errno == EINTR));
    c->is_dead |= n == 0 || (n < 0 && errno != EAGAIN);
}

static void conn_on_event(struct conn *c, uint32_t events) {
    bool is_gone = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (events & EPOLLIN) {
        conn_read(c, is_gone);
        conn_take_input(c);
    }
    if (c->out.len && (events & EPOLLOUT)) conn_flush(c);
    // vLLM too stops for a client that half-closes.
    if (c->is_dead || is_gone) conn_free(c);
}

static void accept_all(void) {
    int fd;
    while ((fd = accept4(engine.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (engine.connections >= engine.max_connections) {
            close(fd);
            continue;
        }
        struct conn *c = checked(calloc(1, sizeof *c));
        c->fd = fd;
        engine.connections++;
        send_without_delay(fd);
        watch(engine.epoll, fd, SOCKET_EVENTS, c);
    }
}

static void send_all_due(void) {
    int64_t now = now_ns();
    struct timer *t;
    while ((t = heap_take_due(&engine.due, now)) != NULL) {
        struct conn *c = (struct conn *)t;
        send_due(c, now);
        if (c->is_dead) conn_free(c);
    }
}

// On a grid of ticks the tokens of many streams share a wake-up, as those of an engine's step do; off it each has its own.
static int64_t next_wake_ns(void) {
    struct timer *next = heap_first(&engine.due);
    int64_t tick_ns = engine.tick_us * 1000;
    if (next == NULL) return now_ns() + 3600 * NS_PER_S;
    return tick_ns ? (next->due_ns + tick_ns - 1) / tick_ns * tick_ns : next->due_ns;
}

static void serve(void) {
    struct epoll_event events[EVENTS_PER_WAIT];
    for (;;) {
        int n = wait_events(engine.epoll, events, next_wake_ns());
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) accept_all();
            else conn_on_event(events[i].data.ptr, events[i].events);
        }
        if (now_ns() >= next_wake_ns()) send_all_due();
    }
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void listen_on(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    socklen_t len = sizeof address;
    int on = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("--host takes an IPv4 address");
    engine.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(engine.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(engine.listener, (struct sockaddr *)&address, len) != 0) fail("bind");
    if (listen(engine.listener, 16384) != 0) fail("listen");
    getsockname(engine.listener, (struct sockaddr *)&address, &len);
    engine.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(engine.epoll, engine.listener, EPOLLIN, NULL);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static const struct option OPTIONS[] = {
    {"host", 1, 0, 'h'},         {"port", 1, 0, 'p'},
    {"model", 1, 0, 'm'},        {"ttft-ms", 1, 0, 't'},
    {"itl-ms", 1, 0, 'i'},       {"slots", 1, 0, 's'},
    {"max-connections", 1, 0, 'c'}, {"prefill-us-per-char", 1, 0, 'f'},
    {"cache-chars", 1, 0, 'k'},  {"tick-us", 1, 0, 'u'},
    {0, 0, 0, 0}};

static void read_arguments(int argc, char **argv) {
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) switch (option) {
        case 'h': engine.host = optarg; break;
        case 'p': engine.port = optarg; break;
        case 'm': engine.model = optarg; break;
        case 't': engine.ttft_ms = atof(optarg); break;
        case 'i': engine.itl_ms = atof(optarg); break;
        case 's': engine.slots = atol(optarg); break;
        case 'c': engine.max_connections = atol(optarg); break;
        case 'f': engine.prefill_us_per_char = atof(optarg); break;
        case 'k': engine.cache_chars = atol(optarg); break;
        case 'u': engine.tick_us = atol(optarg); break;
        default: exit(2);
        }
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    long files = raise_file_limit();
    if (engine.max_connections < 0 || engine.max_connections > files - 16) engine.max_connections = files - 16;
    signal(SIGPIPE, SIG_IGN);
    prefix_cache_open(&engine.cache, (size_t)engine.cache_chars);
    listen_on(engine.host, engine.port);
    serve();
}
