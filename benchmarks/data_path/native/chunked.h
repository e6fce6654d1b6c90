// An incremental decoder of HTTP/1.1's chunked transfer encoding: the input may be cut anywhere.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum chunked_state { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNKED_DONE, CHUNKED_BAD };

struct chunked {
    enum chunked_state state;
    uint64_t left;  // of the chunk's data; the size while it is read
    int digits;
    size_t trailer_line;  // length so far; an empty line ends the body
};

static inline int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline enum chunked_state chunked_size_byte(struct chunked *c, char byte) {
    int digit = hex_digit(byte);
    if (digit >= 0) {
        c->left = c->left * 16 + (uint64_t)digit;
        return ++c->digits > 15 ? CHUNKED_BAD : CHUNK_SIZE;
    }
    if (c->digits == 0) return CHUNKED_BAD;
    if (byte == '\n') {
        c->trailer_line = 0;
        return c->left ? CHUNK_DATA : CHUNK_TRAILER;
    }
    return byte == '\r' || byte == ';' || byte == ' ' || byte == '\t' ? CHUNK_EXTENSION : CHUNKED_BAD;
}

static inline enum chunked_state chunked_frame_byte(struct chunked *c, char byte) {
    switch (c->state) {
    case CHUNK_SIZE:
        return chunked_size_byte(c, byte);
    case CHUNK_EXTENSION:
        return byte == '\n' ? chunked_size_byte(c, byte) : CHUNK_EXTENSION;
    case CHUNK_DATA_END:
        if (byte == '\r') return CHUNK_DATA_END;
        c->left = 0;
        c->digits = 0;
        return byte == '\n' ? CHUNK_SIZE : CHUNKED_BAD;
    case CHUNK_TRAILER:
        if (byte == '\n' && c->trailer_line == 0) return CHUNKED_DONE;
        if (byte != '\r') c->trailer_line = byte == '\n' ? 0 : c->trailer_line + 1;
        return CHUNK_TRAILER;
    default:
        return c->state;
    }
}

// Consumes up to one run of payload (*data, *len; *len is 0 when the input ran out, the body ended or is bad).
// Returns where it stopped.
static inline const char *chunked_next(struct chunked *c, const char *at, const char *end, const char **data, size_t *len) {
    *len = 0;
    while (at < end && c->state < CHUNKED_DONE) {
        if (c->state != CHUNK_DATA) {
            c->state = chunked_frame_byte(c, *at++);
            continue;
        }
        *data = at;
        *len = (uint64_t)(end - at) < c->left ? (size_t)(end - at) : (size_t)c->left;
        c->left -= *len;
        if (c->left == 0) c->state = CHUNK_DATA_END;
        return at + *len;
    }
    return at;
}
