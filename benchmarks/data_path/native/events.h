// Finds what matters in a response's body: events with content, errors, the end of the stream. Input cut anywhere.
#pragma once
#include "buffer.h"
#include "json_scan.h"

#define LINE_MAX_BYTES (16u << 20)

struct events {
    struct buffer line;  // the start of a line whose end has not come yet
    const char *content_key;
    long content_events;
    bool is_done, has_error;
};

static inline void events_begin(struct events *e, bool is_chat) {
    e->line.len = 0;
    e->content_key = is_chat ? "\"content\"" : "\"text\"";
    e->content_events = 0;
    e->is_done = e->has_error = false;
}

static inline bool has_content(const char *at, const char *end, const char *key) {
    const char *value = json_value(at, end, key);
    return value != NULL && end - value > 1 && value[0] == '"' && value[1] != '"';
}

static inline bool has_error(const char *at, const char *end) {
    const char *value = json_value(at, end, "\"error\"");
    return value != NULL && !json_is(value, end, "null");
}

// Returns whether the line is an event with content.
static inline bool events_take_line(struct events *e, const char *at, size_t len) {
    const char *end = at + len;
    if (len < 6 || memcmp(at, "data:", 5) != 0) return false;
    at += at[5] == ' ' ? 6 : 5;
    if (json_is(at, end, "[DONE]")) {
        e->is_done = true;
        return false;
    }
    if (has_content(at, end, e->content_key)) {
        e->content_events++;
        return true;
    }
    e->has_error |= has_error(at, end);
    return false;
}

// Returns how many events with content ended in these bytes.
static inline long events_take(struct events *e, const char *at, size_t len) {
    const char *end = at + len, *stop;
    long before = e->content_events;
    while (at < end && (stop = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (e->line.len == 0) {
            events_take_line(e, at, (size_t)(stop - at));
        } else {
            buffer_add(&e->line, at, (size_t)(stop - at));
            events_take_line(e, e->line.data, e->line.len);
            e->line.len = 0;
        }
        at = stop + 1;
    }
    if (e->line.len < LINE_MAX_BYTES) buffer_add(&e->line, at, (size_t)(end - at));
    return e->content_events - before;
}
