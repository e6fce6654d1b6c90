// The load client's options, users and counters.
#pragma once
#include "chunked.h"
#include "events.h"
#include "heap.h"
#include "histogram.h"
#include "http.h"
#include "net.h"

#define NEVER INT64_MAX
#define KINDS_MAX 64

struct options {
    const char *host, *port, *path, *model, *prompt, *body_file, *bodies_file, *series_file;
    struct buffer headers;
    long concurrency, tokens, max_open;
    double rate, duration_s, warmup_s, timeout_s, ramp_s, think_ms, grace_s;
    uint64_t seed;
    bool is_stream, any_length, is_hold;
};

struct message {  // one request, ready to be sent
    struct buffer bytes;
    long tokens;  // that its answer must have
};

enum user_phase { IDLE, CONNECTING, SENDING, READING };

struct user {
    struct timer timer;  // first: a due timer is its user; when idle the next start, else the timeout
    int fd;              // -1: no connection
    enum user_phase phase;
    const struct message *message;
    size_t sent;
    int64_t from_ns, last_ns, max_gap_ns;  // latencies count from from_ns; last_ns: last event with content, 0: none
    bool is_counted, is_streaming, is_body;
    struct buffer head_bytes;
    struct head head;
    struct chunked chunked;
    uint64_t body_left;
    struct events events;
};

struct error_count {
    char kind[24];
    uint64_t count;
};

struct load {
    struct options options;
    struct sockaddr_storage address;
    socklen_t address_len;
    struct message *messages;
    size_t message_count, next_message;
    int epoll;
    struct heap due;
    struct user **users;
    long user_count, connected, open, open_max, streaming, streaming_max, ended, waiting_max;
    struct user **idle;  // open loop: connections without a request
    long idle_count;
    int64_t start_ns, window_from_ns, window_to_ns, end_ns;
    int64_t next_arrival_ns;      // open loop
    struct buffer late_arrivals;  // int64_t: intended starts that wait for a connection
    size_t late_taken;
    uint64_t random;
    struct histogram ttft, itl, e2e, longest_gap;
    struct error_count errors[KINDS_MAX], warmup_errors[KINDS_MAX];
    uint64_t requests, tokens, reads, coalesced;
    uint64_t second_tokens, second_errors;
    FILE *series;
    int64_t series_second;
};

static struct load load;

static inline bool is_open_loop(void) { return load.options.rate > 0; }

static inline bool in_window(int64_t now) { return now >= load.window_from_ns && now < load.window_to_ns; }

static inline double random_share(void) {  // in (0, 1]; splitmix64
    uint64_t z = load.random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (double)(((z ^ (z >> 31)) >> 11) + 1) / 9007199254740992.0;
}

static inline void count_error(const struct user *u, const char *kind) {
    struct error_count *counts = u->is_counted ? load.errors : load.warmup_errors;
    size_t i = 0;
    while (i < KINDS_MAX - 1 && counts[i].count && strcmp(counts[i].kind, kind) != 0) i++;
    snprintf(counts[i].kind, sizeof counts[i].kind, "%s", kind);
    counts[i].count++;
    load.second_errors++;
}
