// A growing run of bytes. Out of memory ends the program: a benchmark that swaps has no result anyway.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *data;
    size_t len, cap;
};

static inline void *checked(void *memory) {
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

static inline void buffer_reserve(struct buffer *b, size_t more) {
    if (b->len + more <= b->cap) return;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < b->len + more) cap *= 2;
    b->data = checked(realloc(b->data, cap));
    b->cap = cap;
}

static inline void buffer_add(struct buffer *b, const char *data, size_t len) {
    if (len == 0) return;
    buffer_reserve(b, len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

__attribute__((format(printf, 2, 3))) static inline void buffer_print(struct buffer *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    buffer_reserve(b, (size_t)len + 1);
    vsnprintf(b->data + b->len, (size_t)len + 1, format, again);
    b->len += (size_t)len;
    va_end(again);
    va_end(args);
}

static inline void buffer_drop(struct buffer *b, size_t len) {
    b->len -= len;
    if (b->len) memmove(b->data, b->data + len, b->len);
}

static inline void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}
