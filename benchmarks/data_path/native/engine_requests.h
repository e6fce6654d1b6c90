// From a request's bytes to its answer's: parse, wait for a slot, send each token when it is due.
#pragma once
#include "engine_state.h"

#define BODY_MAX_BYTES (64LL << 20)
#define TOKENS_DEFAULT 16
#define TOKENS_MAX 1000000
#define CHARS_PER_TOKEN 4

static int64_t token_due_ns(const struct conn *c, long token) {
    return c->start_ns + (int64_t)((engine.ttft_ms + c->prefill_ms + engine.itl_ms * (double)token) * 1e6);
}

static void request_start(struct conn *c, int64_t now) {
    c->phase = ANSWERING;
    c->start_ns = now;
    engine.running++;
    timer_set(&engine.due, &c->timer, token_due_ns(c, c->answer.is_stream ? 0 : c->answer.tokens - 1));
}

static void waiting_add(struct conn *c) {
    c->phase = WAITING;
    c->next_waiting = NULL;
    c->previous_waiting = engine.last_waiting;
    *(engine.last_waiting ? &engine.last_waiting->next_waiting : &engine.first_waiting) = c;
    engine.last_waiting = c;
}

static void waiting_remove(struct conn *c) {
    *(c->previous_waiting ? &c->previous_waiting->next_waiting : &engine.first_waiting) = c->next_waiting;
    *(c->next_waiting ? &c->next_waiting->previous_waiting : &engine.last_waiting) = c->previous_waiting;
}

static bool has_slot(void) { return engine.slots == 0 || engine.running < engine.slots; }

// Gives back what the request held: its slot or its place in the queue.
static void request_end(struct conn *c) {
    timer_clear(&engine.due, &c->timer);
    engine.open--;
    if (c->phase == WAITING) waiting_remove(c);
    else engine.running--;
    c->phase = READING_HEAD;
    while (engine.first_waiting && has_slot()) {
        struct conn *next = engine.first_waiting;
        waiting_remove(next);
        request_start(next, now_ns());
    }
}

static void read_options(struct conn *c, const char *at, const char *end) {
    struct answer *a = &c->answer;
    const char *limit = json_value(at, end, "\"max_completion_tokens\"");
    if (limit == NULL) limit = json_value(at, end, "\"max_tokens\"");
    a->tokens = json_integer(limit, end, TOKENS_DEFAULT);
    if (a->tokens < 1) a->tokens = 1;
    if (a->tokens > TOKENS_MAX) a->tokens = TOKENS_MAX;
    a->is_stream = json_is(json_value(at, end, "\"stream\""), end, "true");
    a->has_usage = json_is(json_value(at, end, "\"include_usage\""), end, "true");
    a->counts_usage = json_is(json_value(at, end, "\"continuous_usage_stats\""), end, "true");
    a->is_framed = a->is_stream && !c->head.http10;
}

// The prompt is everything from its key on: what follows it in a body hardly differs between requests.
static void model_prefill(struct conn *c, const char *prompt, const char *end) {
    size_t chars = (size_t)(end - prompt), cached = prefix_cache_use(&engine.cache, prompt, chars);
    engine.prompt_chars += chars;
    engine.cached_chars += cached;
    c->prefill_ms = engine.prefill_us_per_char * (double)(chars - cached) / 1000;
    c->answer.prompt_tokens = (long)(chars / CHARS_PER_TOKEN) + 1;
}

static void refuse(struct conn *c, const char *status, const char *message) {
    char body[256];
    int len = snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"BadRequestError\",\"param\":null,\"code\":%d}}",
                       message, atoi(status));
    c->closes_after_flush |= strncmp(status, "400", 3) == 0;
    conn_send_print(c, status, "application/json", body, (size_t)len);
}

static void start_completion(struct conn *c, bool is_chat, const char *body, size_t len) {
    const char *end = body + len, *prompt = json_value(body, end, is_chat ? "\"messages\"" : "\"prompt\"");
    if (prompt == NULL) {
        refuse(c, "400 Bad Request", is_chat ? "no messages" : "no prompt");
        return;
    }
    c->answer.is_chat = is_chat;
    read_options(c, body, end);
    model_prefill(c, prompt, end);
    answer_begin(&c->answer, ++engine.requests);
    if (c->answer.is_stream) build_token_event(&c->answer, engine.model);
    if (++engine.open > engine.max_open) engine.max_open = engine.open;
    if (has_slot()) request_start(c, now_ns());
    else waiting_add(c);
}

static void send_models(struct conn *c) {
    struct buffer body = {0};
    buffer_print(&body,
                 "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":%ld,\"owned_by\":\"vllm\","
                 "\"root\":\"%s\",\"parent\":null,\"max_model_len\":32768,\"permission\":[]}]}",
                 engine.model, (long)time(NULL), engine.model);
    conn_send_print(c, "200 OK", "application/json", body.data, body.len);
    buffer_free(&body);
}

static void send_stats(struct conn *c) {
    struct buffer body = {0};
    buffer_print(&body,
                 "{\"open\":%ld,\"max_open\":%ld,\"connections\":%ld,\"requests\":%llu,\"tokens\":%llu,\"aborted\":%llu,"
                 "\"prompt_chars\":%llu,\"cached_chars\":%llu,\"cpu_s\":%.6f}",
                 engine.open, engine.max_open, engine.connections, (unsigned long long)engine.requests,
                 (unsigned long long)engine.tokens, (unsigned long long)engine.aborted, (unsigned long long)engine.prompt_chars,
                 (unsigned long long)engine.cached_chars, cpu_s() - engine.cpu_s_at_reset);
    conn_send_print(c, "200 OK", "application/json", body.data, body.len);
    buffer_free(&body);
}

static void reset_stats(struct conn *c) {
    engine.max_open = engine.open;
    engine.requests = engine.tokens = engine.aborted = engine.prompt_chars = engine.cached_chars = 0;
    engine.cpu_s_at_reset = cpu_s();
    conn_send_print(c, "200 OK", "application/json", "{}", 2);
}

static void route(struct conn *c, const char *body, size_t len) {
    bool is_post = strcmp(c->head.method, "POST") == 0;
    const char *path = c->head.path;
    c->phase = READING_HEAD;
    if (is_post && strcmp(path, "/v1/chat/completions") == 0) start_completion(c, true, body, len);
    else if (is_post && strcmp(path, "/v1/completions") == 0) start_completion(c, false, body, len);
    else if (is_post && strcmp(path, "/stats/reset") == 0) reset_stats(c);
    else if (!is_post && strcmp(path, "/stats") == 0) send_stats(c);
    else if (!is_post && strcmp(path, "/v1/models") == 0) send_models(c);
    else if (!is_post && strcmp(path, "/health") == 0) conn_send_print(c, "200 OK", "text/plain", "", 0);
    else refuse(c, "404 Not Found", "no such path");
}

static bool take_head(struct conn *c) {
    size_t from = c->searched > 3 ? c->searched - 3 : 0, length = head_length(c->in.data + from, c->in.len - from);
    c->searched = c->in.len;
    if (length == 0 && c->in.len < HEAD_MAX_BYTES) return false;
    if (length) c->head = head_parse(c->in.data, from + length);
    c->searched = 0;
    if (length == 0 || c->head.is_bad || c->head.method[0] == 0 || c->head.content_length > BODY_MAX_BYTES) {
        refuse(c, "400 Bad Request", "malformed request");
        return false;
    }
    c->closes_after_flush = c->head.closes;
    buffer_drop(&c->in, c->head.length);
    c->phase = READING_BODY;
    c->chunked = (struct chunked){0};
    c->body.len = 0;
    if (c->head.expects_continue && c->in.len == 0) {
        buffer_print(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        bool closes = c->closes_after_flush;
        c->closes_after_flush = false;
        conn_flush(c);
        c->closes_after_flush = closes;
    }
    return true;
}

static bool take_sized_body(struct conn *c) {
    size_t len = c->head.content_length > 0 ? (size_t)c->head.content_length : 0;
    if (c->in.len < len) return false;
    route(c, c->in.data, len);
    buffer_drop(&c->in, len);
    return true;
}

static bool take_chunked_body(struct conn *c) {
    const char *at = c->in.data, *end = at + c->in.len, *data = NULL;
    size_t len;
    do {
        at = chunked_next(&c->chunked, at, end, &data, &len);
        if (len) buffer_add(&c->body, data, len);
    } while (len);
    buffer_drop(&c->in, (size_t)(at - c->in.data));
    if (c->chunked.state == CHUNKED_BAD || c->body.len > (size_t)BODY_MAX_BYTES) refuse(c, "400 Bad Request", "malformed chunk");
    if (c->chunked.state != CHUNKED_DONE) return false;
    route(c, c->body.data, c->body.len);
    return true;
}

// Answers as many of the requests that have come whole as it can; the next one waits for the answer before it.
static void conn_advance(struct conn *c) {
    while (!c->is_dead && !c->closes_after_flush && c->phase == READING_HEAD && c->in.len && take_head(c)) {
        if (!(c->head.chunked ? take_chunked_body(c) : take_sized_body(c))) return;
    }
}

static void conn_take_input(struct conn *c) {
    if (c->phase == READING_BODY && !(c->head.chunked ? take_chunked_body(c) : take_sized_body(c))) return;
    conn_advance(c);
}

static void send_now(struct conn *c, const struct buffer *bytes) {
    ssize_t n = 0;
    if (c->out.len == 0) n = send(c->fd, bytes->data, bytes->len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) c->is_dead = true;
    if (n < 0) n = 0;
    buffer_add(&c->out, bytes->data + n, bytes->len - (size_t)n);
}

static void answer_is_over(struct conn *c) {
    request_end(c);
    if (c->out.len == 0 && c->closes_after_flush) c->is_dead = true;
    conn_advance(c);
}

static void send_whole(struct conn *c) {
    struct buffer body = {0};
    add_whole(&c->answer, &body, engine.model);
    engine.tokens += (uint64_t)c->answer.tokens;
    conn_send_print(c, "200 OK", "application/json", body.data, body.len);
    buffer_free(&body);
    answer_is_over(c);
}

static void add_stream_head(const struct conn *c, struct buffer *out) {
    buffer_print(out, "HTTP/1.1 200 OK\r\nserver: fake\r\ncontent-type: text/event-stream; charset=utf-8\r\n%s%s\r\n",
                 c->answer.is_framed ? "transfer-encoding: chunked\r\n" : "", c->closes_after_flush ? "connection: close\r\n" : "");
    add_first_event(&c->answer, out, engine.model);
}

// Sends every token that is due in one write; more than one only when the stream is late.
static void send_due(struct conn *c, int64_t now) {
    static struct buffer bytes;
    struct answer *a = &c->answer;
    if (!a->is_stream) {
        send_whole(c);
        return;
    }
    bytes.len = 0;
    if (a->sent == 0) add_stream_head(c, &bytes);
    long before = a->sent;
    while (a->sent < a->tokens && token_due_ns(c, a->sent) <= now) add_token_event(a, &bytes, engine.model);
    engine.tokens += (uint64_t)(a->sent - before);
    if (a->sent == a->tokens) add_last_events(a, &bytes, engine.model);
    else timer_set(&engine.due, &c->timer, token_due_ns(c, a->sent));
    send_now(c, &bytes);
    if (a->sent == a->tokens) answer_is_over(c);
}
