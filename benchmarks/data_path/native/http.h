// What both sides read of an HTTP/1.x head.
#pragma once
#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX_BYTES 65536

struct head {
    size_t length;  // with the empty line; 0 while incomplete
    int status;     // of a response
    bool http10, closes, chunked, expects_continue;
    int64_t content_length;  // -1: none given
    char method[12], path[256];
    bool is_bad;
};

struct text {
    const char *at;
    size_t len;
};

static inline bool text_has(struct text t, const char *word) {
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= t.len; i++)
        if (strncasecmp(t.at + i, word, len) == 0) return true;
    return false;
}

// The length of the head at the start of `data` with its empty line, or 0.
static inline size_t head_length(const char *data, size_t len) {
    const char *end = memmem(data, len, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

static inline bool parse_length(struct text value, int64_t *length) {
    int64_t total = 0;
    if (value.len == 0 || value.len > 15) return false;
    for (size_t i = 0; i < value.len; i++) {
        if (!isdigit((unsigned char)value.at[i])) return false;
        total = total * 10 + (value.at[i] - '0');
    }
    *length = total;
    return true;
}

static inline bool name_is(struct text name, const char *word) {
    return name.len == strlen(word) && strncasecmp(name.at, word, name.len) == 0;
}

static inline void head_take_field(struct head *h, struct text name, struct text value) {
    if (name_is(name, "content-length")) h->is_bad |= !parse_length(value, &h->content_length);
    if (name_is(name, "transfer-encoding")) h->chunked = text_has(value, "chunked");
    if (name_is(name, "connection")) h->closes |= text_has(value, "close");
    if (name_is(name, "expect")) h->expects_continue = text_has(value, "100-continue");
}

static inline void head_take_line(struct head *h, const char *line, size_t len) {
    const char *colon = memchr(line, ':', len);
    if (colon == NULL) {
        h->is_bad = true;
        return;
    }
    const char *from = colon + 1, *end = line + len;
    while (from < end && (*from == ' ' || *from == '\t')) from++;
    while (end > from && (end[-1] == ' ' || end[-1] == '\t')) end--;
    head_take_field(h, (struct text){line, (size_t)(colon - line)}, (struct text){from, (size_t)(end - from)});
}

static inline void head_take_first_line(struct head *h, const char *line, size_t len) {
    char copy[512], version[16] = "";
    snprintf(copy, sizeof copy, "%.*s", (int)(len < sizeof copy ? len : sizeof copy - 1), line);
    if (strncmp(copy, "HTTP/1.", 7) == 0) {
        h->is_bad = sscanf(copy, "HTTP/1.%*c %3d", &h->status) != 1;
        h->http10 = copy[7] == '0';
        return;
    }
    if (sscanf(copy, "%11s %255s %15s", h->method, h->path, version) != 3 || strncmp(version, "HTTP/1.", 7) != 0) h->is_bad = true;
    h->http10 = version[7] == '0';
    h->path[strcspn(h->path, "?")] = 0;
}

// Reads the head of `length` bytes (of head_length) at `data`.
static inline struct head head_parse(const char *data, size_t length) {
    struct head h = {.length = length, .content_length = -1};
    const char *at = data, *end = data + length - 2;  // the empty line is no field
    for (bool first = true; at < end; first = false) {
        const char *stop = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (stop == NULL) break;
        if (first) head_take_first_line(&h, at, (size_t)(stop - at));
        else head_take_line(&h, at, (size_t)(stop - at));
        at = stop + 2;
    }
    h.closes |= h.http10;
    return h;
}
