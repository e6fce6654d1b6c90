// One user's request, from its start to its verdict.
#pragma once
#include "load_messages.h"

#define READ_BYTES 65536
// A user rests after a failure, so that a server which refuses at once is not asked a million times.
#define REST_AFTER_ERROR_NS (50 * NS_PER_MS)

static void user_is_free(struct user *u, int64_t now, bool failed);  // of load.c: what comes next

static void user_disconnect(struct user *u) {
    if (u->fd < 0) return;
    close(u->fd);
    u->fd = -1;
    load.connected--;
}

static void hold_window_update(int64_t now, bool has_ended) {
    if (!load.options.is_hold) return;
    if (load.window_from_ns == NEVER && load.streaming > 0 && load.streaming + load.ended == load.options.concurrency)
        load.window_from_ns = now;
    // A user that never streamed does not end the window that the others hold.
    if (has_ended && load.window_from_ns != NEVER && load.window_to_ns == NEVER) load.window_to_ns = now;
}

// Ends the request: counts it, or the kind of its error.
static void request_end(struct user *u, int64_t now, const char *error) {
    bool was_streaming = u->is_streaming;
    timer_clear(&load.due, &u->timer);
    u->phase = IDLE;
    u->is_streaming = false;
    load.open--;
    load.ended++;
    load.streaming -= was_streaming;
    if (was_streaming) hold_window_update(now, true);
    else hold_window_update(now, false);
    if (error) {
        count_error(u, error);
        user_disconnect(u);
    } else if (u->is_counted) {
        load.requests++;
        histogram_add(&load.e2e, now - u->from_ns);
        if (u->events.content_events > 1) histogram_add(&load.longest_gap, u->max_gap_ns);
    }
    if (u->head.closes) user_disconnect(u);
    user_is_free(u, now, error != NULL);
}

static void take_whole_answer(struct user *u, int64_t now) {
    struct events *e = &u->events;
    const char *end = e->line.data + e->line.len;
    e->content_events = e->line.len ? json_integer(json_value(e->line.data, end, "\"completion_tokens\""), end, 0) : 0;
    if (in_window(now)) load.tokens += (uint64_t)e->content_events;
    load.second_tokens += (uint64_t)e->content_events;
}

static void body_end(struct user *u, int64_t now) {
    char kind[24];
    const char *error = NULL;
    if (!load.options.is_stream && u->head.status == 200) take_whole_answer(u, now);
    if (u->head.status != 200) {
        snprintf(kind, sizeof kind, "status_%03d", u->head.status);
        error = kind;
    } else if (u->events.has_error) error = "error_event";
    else if (load.options.is_stream && !u->events.is_done) error = "cut";
    else if (!load.options.any_length && u->events.content_events < u->message->tokens) error = "short";
    request_end(u, now, error);
}

static void take_gap(struct user *u, int64_t now) {
    int64_t gap = now - u->last_ns;
    if (gap > u->max_gap_ns) u->max_gap_ns = gap;
    histogram_add(&load.itl, gap);
}

// The first event of a read stands for the gap; the others came with it (the same `now`), so their gaps are 0.
static void take_gaps(struct user *u, long events, int64_t now) {
    bool is_first = u->last_ns == 0, has_gaps = u->is_counted && (!load.options.is_hold || in_window(now));
    load.coalesced += (uint64_t)(events - (now != u->last_ns));
    if (is_first) {
        if (u->is_counted) histogram_add(&load.ttft, now - u->from_ns);
        u->last_ns = now;
        events--;
    }
    for (; has_gaps && events > 0; events--, u->last_ns = now) take_gap(u, now);
    u->last_ns = now;
}

static void take_events(struct user *u, long events, int64_t now) {
    load.second_tokens += (uint64_t)events;
    if (in_window(now)) load.tokens += (uint64_t)events;
    take_gaps(u, events, now);
    if (u->is_streaming) return;
    u->is_streaming = true;
    if (++load.streaming > load.streaming_max) load.streaming_max = load.streaming;
    hold_window_update(now, false);
}

static void take_payload(struct user *u, const char *data, size_t len, int64_t now) {
    if (!load.options.is_stream || u->head.status != 200) {
        if (u->events.line.len < LINE_MAX_BYTES) buffer_add(&u->events.line, data, len);
        return;
    }
    long events = events_take(&u->events, data, len);
    if (events) take_events(u, events, now);
}

static bool head_is_whole(struct user *u, const char **at, const char *end) {
    size_t before = u->head_bytes.len;
    buffer_add(&u->head_bytes, *at, (size_t)(end - *at));
    size_t length = head_length(u->head_bytes.data, u->head_bytes.len);
    if (length == 0) {
        *at = end;
        return false;
    }
    u->head = head_parse(u->head_bytes.data, length);
    *at += length - before;
    u->head_bytes.len = 0;
    return u->head.status >= 200 || u->head.is_bad;  // 1xx: the real head follows
}

static bool is_close_delimited(const struct user *u) { return !u->head.chunked && u->head.content_length < 0; }

static void take_chunks(struct user *u, const char *at, const char *end, int64_t now) {
    const char *data = NULL;
    size_t len;
    do {
        at = chunked_next(&u->chunked, at, end, &data, &len);
        if (len) take_payload(u, data, len, now);
    } while (len);
    if (u->chunked.state == CHUNKED_BAD) request_end(u, now, "protocol");
    else if (u->chunked.state == CHUNKED_DONE) body_end(u, now);
}

static void take_body(struct user *u, const char *at, const char *end, int64_t now) {
    if (u->head.chunked) {
        take_chunks(u, at, end, now);
        return;
    }
    size_t len = (size_t)(end - at);
    if (!is_close_delimited(u) && len > u->body_left) len = (size_t)u->body_left;
    if (len) take_payload(u, at, len, now);
    u->body_left -= len;
    if (!is_close_delimited(u) && u->body_left == 0) body_end(u, now);
}

static void take_input(struct user *u, const char *at, const char *end, int64_t now) {
    while (!u->is_body) {
        if (at == end) return;
        if (!head_is_whole(u, &at, end)) continue;
        u->is_body = true;
        u->body_left = u->head.content_length > 0 ? (uint64_t)u->head.content_length : 0;
        if (u->head.is_bad) {
            request_end(u, now, "protocol");
            return;
        }
    }
    take_body(u, at, end, now);
}

static void connection_is_lost(struct user *u, int64_t now) {
    if (u->phase == IDLE) user_disconnect(u);
    else if (u->phase == CONNECTING) request_end(u, now, "connect");
    else if (u->is_body && is_close_delimited(u)) {
        u->head.closes = true;
        body_end(u, now);
    } else request_end(u, now, "cut");
}

static void user_read(struct user *u, bool is_gone) {
    static char bytes[READ_BYTES];
    int fd = u->fd;
    ssize_t n;
    do {
        n = recv(fd, bytes, sizeof bytes, 0);
        if (n <= 0) break;
        load.reads++;
        if (u->phase == READING) take_input(u, bytes, bytes + n, now_ns());
        // A short read has emptied the socket; only an end can follow, and that has its own event.
    } while (u->fd == fd && (n == (ssize_t)sizeof bytes || is_gone));
    bool is_lost = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (is_lost && u->fd == fd) connection_is_lost(u, now_ns());
}

static void user_send(struct user *u) {
    const struct buffer *bytes = &u->message->bytes;
    while (u->sent < bytes->len) {
        ssize_t n = send(u->fd, bytes->data + u->sent, bytes->len - u->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            // A server may have answered (an error) before it closed: reading finds out.
            if (errno != EAGAIN) u->phase = READING;
            return;
        }
        u->sent += (size_t)n;
    }
    u->phase = READING;
    if (!is_open_loop()) u->from_ns = now_ns();
}

static void user_connect(struct user *u, int64_t now) {
    u->phase = CONNECTING;
    u->fd = socket(load.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (u->fd < 0) {
        request_end(u, now, "connect");
        return;
    }
    load.connected++;
    send_without_delay(u->fd);
    bool fails = connect(u->fd, (struct sockaddr *)&load.address, load.address_len) != 0 && errno != EINPROGRESS;
    if (fails) request_end(u, now, "connect");
    else watch(load.epoll, u->fd, SOCKET_EVENTS, u);
}

static void request_begin(struct user *u, int64_t intended_ns, int64_t now) {
    u->message = next_message();
    u->sent = 0;
    u->from_ns = intended_ns;
    u->last_ns = u->max_gap_ns = 0;
    u->is_counted = load.options.is_hold || intended_ns >= load.window_from_ns;
    u->is_body = false;
    u->head = (struct head){0};
    u->head_bytes.len = 0;
    u->chunked = (struct chunked){0};
    events_begin(&u->events, is_chat());
    if (++load.open > load.open_max) load.open_max = load.open;
    timer_set(&load.due, &u->timer, now + (int64_t)(load.options.timeout_s * 1e9));
    u->phase = SENDING;
    if (u->fd < 0) user_connect(u, now);
    else user_send(u);
}
