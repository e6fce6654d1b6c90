// The bodies that vLLM's OpenAI server would send, byte for byte in shape.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "buffer.h"

#define TOKEN_DIGITS 4
#define TOKEN_TEXT " tok0000"

struct answer {
    bool is_chat, is_stream, has_usage, counts_usage, is_framed;  // counts: usage in every event; framed: in HTTP chunks (HTTP/1.0 has none)
    long tokens, sent, prompt_tokens;
    char id[48];
    long created;
    struct buffer event;  // one token's event as it is sent; only its digits change
    size_t digits_at;
};

static inline void answer_begin(struct answer *a, uint64_t number) {
    a->sent = 0;
    a->event.len = 0;
    a->created = (long)time(NULL);
    snprintf(a->id, sizeof a->id, "%s-%016llx%016llx", a->is_chat ? "chatcmpl" : "cmpl",
             (unsigned long long)(number * 0x9e3779b97f4a7c15ULL), (unsigned long long)number);
}

static inline void add_framed(const struct answer *a, struct buffer *out, const struct buffer *payload) {
    if (a->is_framed) buffer_print(out, "%zx\r\n", payload->len);
    buffer_add(out, payload->data, payload->len);
    if (a->is_framed) buffer_add(out, "\r\n", 2);
}

static inline void add_event(const struct answer *a, struct buffer *out, const char *model, const char *rest) {
    static struct buffer payload;
    payload.len = 0;
    buffer_print(&payload, "data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld,\"model\":\"%s\",%s}\n\n", a->id,
                 a->is_chat ? "chat.completion.chunk" : "text_completion", a->created, model, rest);
    add_framed(a, out, &payload);
}

static inline void add_first_event(const struct answer *a, struct buffer *out, const char *model) {
    if (!a->is_chat) return;  // completions have no role to announce
    add_event(a, out, model,
              "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
              "\"finish_reason\":null}]");
}

static inline void build_token_event(struct answer *a, const char *model) {
    add_event(a, &a->event, model,
              a->is_chat ? "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" TOKEN_TEXT
                           "\"},\"logprobs\":null,\"finish_reason\":null}]"
                         : "\"choices\":[{\"index\":0,\"text\":\"" TOKEN_TEXT
                           "\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}]");
    const char *text = memmem(a->event.data, a->event.len, "\"" TOKEN_TEXT, sizeof TOKEN_TEXT);
    a->digits_at = (size_t)(text - a->event.data) + sizeof TOKEN_TEXT - TOKEN_DIGITS;
}

static inline void print_usage(struct buffer *out, const struct answer *a, long tokens) {
    buffer_print(out, "\"usage\":{\"prompt_tokens\":%ld,\"total_tokens\":%ld,\"completion_tokens\":%ld}", a->prompt_tokens,
                 a->prompt_tokens + tokens, tokens);
}

// With continuous_usage_stats every event says how many tokens there are so far.
static inline void add_counted_event(struct answer *a, struct buffer *out, const char *model) {
    static struct buffer rest;
    rest.len = 0;
    buffer_print(&rest,
                 a->is_chat ? "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok%0*ld\"},\"logprobs\":null,\"finish_reason\":null}],"
                            : "\"choices\":[{\"index\":0,\"text\":\" tok%0*ld\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}],",
                 TOKEN_DIGITS, a->sent % 10000);
    print_usage(&rest, a, ++a->sent);
    add_event(a, out, model, rest.data);
}

static inline void add_token_event(struct answer *a, struct buffer *out, const char *model) {
    if (a->counts_usage) {
        add_counted_event(a, out, model);
        return;
    }
    long number = a->sent++;
    for (size_t i = TOKEN_DIGITS; i-- > 0; number /= 10) a->event.data[a->digits_at + i] = (char)('0' + number % 10);
    buffer_add(out, a->event.data, a->event.len);
}

static inline void add_usage_event(const struct answer *a, struct buffer *out, const char *model) {
    struct buffer rest = {0};
    buffer_print(&rest, "\"choices\":[],");
    print_usage(&rest, a, a->tokens);
    add_event(a, out, model, rest.data);
    buffer_free(&rest);
}

static inline void add_last_events(const struct answer *a, struct buffer *out, const char *model) {
    static char done[] = "data: [DONE]\n\n";
    add_event(a, out, model,
              a->is_chat ? "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,"
                           "\"finish_reason\":\"length\",\"stop_reason\":null}]"
                         : "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\","
                           "\"stop_reason\":null}]");
    if (a->has_usage) add_usage_event(a, out, model);
    add_framed(a, out, &(struct buffer){.data = done, .len = sizeof done - 1});
    if (a->is_framed) buffer_add(out, "0\r\n\r\n", 5);
}

static inline void add_whole_text(struct buffer *out, long tokens) {
    for (long i = 0; i < tokens; i++) buffer_print(out, " tok%0*ld", TOKEN_DIGITS, i % 10000);
}

// The answer to a request without "stream", as one JSON document.
static inline void add_whole(const struct answer *a, struct buffer *out, const char *model) {
    buffer_print(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld,\"model\":\"%s\",\"choices\":[{\"index\":0,", a->id,
                 a->is_chat ? "chat.completion" : "text_completion", a->created, model);
    buffer_print(out, a->is_chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    add_whole_text(out, a->tokens);
    buffer_print(out, a->is_chat ? "\"}" : "\"");
    buffer_print(out, ",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}],");
    print_usage(out, a, a->tokens);
    buffer_print(out, "}");
}
