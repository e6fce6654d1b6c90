// The engine's options, counters and connections.
#pragma once
#include "answer.h"
#include "chunked.h"
#include "heap.h"
#include "http.h"
#include "json_scan.h"
#include "net.h"
#include "prefix_cache.h"

enum phase { READING_HEAD, READING_BODY, WAITING, ANSWERING };

struct conn {
    struct timer timer;  // first: a due timer is its connection
    struct conn *next_waiting, *previous_waiting;
    int fd;
    enum phase phase;
    bool closes_after_flush, is_dead;
    struct head head;
    struct chunked chunked;
    struct buffer in, body, out;  // body: of a chunked request only; out: what the socket did not take yet
    size_t out_sent, searched;    // searched: bytes of `in` known to hold no end of the head
    struct answer answer;
    int64_t start_ns;  // when the request came, or got its slot
    double prefill_ms;
};

struct engine {
    const char *host, *model, *port;
    double ttft_ms, itl_ms, prefill_us_per_char;
    long slots, max_connections, cache_chars, tick_us;
    int epoll, listener;
    struct heap due;
    struct prefix_cache cache;
    struct conn *first_waiting, *last_waiting;
    long running, open, max_open, connections;
    uint64_t requests, tokens, aborted, prompt_chars, cached_chars;
    double cpu_s_at_reset;
};

static struct engine engine = {
    .host = "127.0.0.1", .port = "0", .model = "fake", .ttft_ms = 10, .itl_ms = 10, .max_connections = -1};

static inline bool is_unfinished(const struct conn *c) {
    return c->phase == WAITING || c->phase == ANSWERING || c->out_sent < c->out.len;
}

// Sends what the socket takes now and keeps the rest for when it takes more.
static inline void conn_flush(struct conn *c) {
    while (c->out_sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            c->is_dead |= errno != EAGAIN;
            return;
        }
        c->out_sent += (size_t)n;
    }
    c->out.len = c->out_sent = 0;
    c->is_dead |= c->closes_after_flush;
}

static inline void conn_send_print(struct conn *c, const char *status, const char *type, const char *body, size_t len) {
    buffer_print(&c->out, "HTTP/1.1 %s\r\nserver: fake\r\ncontent-type: %s\r\ncontent-length: %zu\r\n%s\r\n", status, type, len,
                 c->closes_after_flush ? "connection: close\r\n" : "");
    buffer_add(&c->out, body, len);
    conn_flush(c);
}
