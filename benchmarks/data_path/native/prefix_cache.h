// A model of vLLM's prefix cache: hashed prefixes of whole blocks, the least recently used block leaves first.
#pragma once
#include <stdint.h>
#include <stdlib.h>

#include "buffer.h"

#define BLOCK_CHARS 64
#define NO_BLOCK UINT32_MAX

struct block {
    uint64_t hash;  // of the prompt from its start to this block's end
    uint32_t newer, older, next_in_bucket;
};

struct prefix_cache {
    struct block *blocks;
    uint32_t *buckets;
    uint32_t capacity, used, newest, oldest, bucket_mask;
    struct buffer hashes;  // of the prompt being looked up
};

static inline void prefix_cache_open(struct prefix_cache *c, size_t chars) {
    size_t capacity = chars / BLOCK_CHARS, buckets = 16;
    if (capacity > 1u << 30) capacity = 1u << 30;
    while (buckets < capacity * 2) buckets *= 2;
    *c = (struct prefix_cache){.capacity = (uint32_t)capacity, .newest = NO_BLOCK, .oldest = NO_BLOCK};
    if (capacity == 0) return;
    c->bucket_mask = (uint32_t)(buckets - 1);
    c->blocks = checked(malloc(capacity * sizeof *c->blocks));
    c->buckets = checked(malloc(buckets * sizeof *c->buckets));
    memset(c->buckets, 0xff, buckets * sizeof *c->buckets);
}

static inline uint64_t block_hash(uint64_t hash, const char *chars) {
    for (size_t i = 0; i < BLOCK_CHARS; i += 8) {
        uint64_t word;
        memcpy(&word, chars + i, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
        hash ^= hash >> 29;
    }
    return hash;
}

static inline uint32_t cache_find(const struct prefix_cache *c, uint64_t hash) {
    uint32_t at = c->buckets[hash & c->bucket_mask];
    while (at != NO_BLOCK && c->blocks[at].hash != hash) at = c->blocks[at].next_in_bucket;
    return at;
}

static inline void cache_unlink(struct prefix_cache *c, uint32_t at) {
    struct block *b = &c->blocks[at];
    *(b->newer == NO_BLOCK ? &c->newest : &c->blocks[b->newer].older) = b->older;
    *(b->older == NO_BLOCK ? &c->oldest : &c->blocks[b->older].newer) = b->newer;
}

static inline void cache_make_newest(struct prefix_cache *c, uint32_t at) {
    c->blocks[at].newer = NO_BLOCK;
    c->blocks[at].older = c->newest;
    *(c->newest == NO_BLOCK ? &c->oldest : &c->blocks[c->newest].newer) = at;
    c->newest = at;
}

static inline uint32_t cache_evict(struct prefix_cache *c) {
    uint32_t at = c->oldest;
    uint32_t *link = &c->buckets[c->blocks[at].hash & c->bucket_mask];
    while (*link != at) link = &c->blocks[*link].next_in_bucket;
    *link = c->blocks[at].next_in_bucket;
    cache_unlink(c, at);
    return at;
}

static inline void cache_touch(struct prefix_cache *c, uint64_t hash) {
    uint32_t at = cache_find(c, hash);
    if (at != NO_BLOCK) {
        cache_unlink(c, at);
    } else {
        at = c->used < c->capacity ? c->used++ : cache_evict(c);
        uint32_t *bucket = &c->buckets[hash & c->bucket_mask];
        c->blocks[at] = (struct block){.hash = hash, .next_in_bucket = *bucket};
        *bucket = at;
    }
    cache_make_newest(c, at);
}

// Returns how many leading chars of the prompt were cached, and caches its whole blocks.
static inline size_t prefix_cache_use(struct prefix_cache *c, const char *prompt, size_t len) {
    if (c->capacity == 0) return 0;
    size_t count = len / BLOCK_CHARS, cached = 0;
    if (count > c->capacity) count = c->capacity;
    c->hashes.len = 0;
    buffer_reserve(&c->hashes, count * sizeof(uint64_t) + 1);
    uint64_t *hashes = (uint64_t *)(void *)c->hashes.data, hash = 0x243f6a8885a308d3ULL;
    for (size_t i = 0; i < count; i++) hashes[i] = hash = block_hash(hash, prompt + i * BLOCK_CHARS);
    while (cached < count && cache_find(c, hashes[cached]) != NO_BLOCK) cached++;
    // Last block first, as vLLM frees them: a prompt's tail is evicted before the start that others may share.
    for (size_t i = count; i-- > 0;) cache_touch(c, hashes[i]);
    return cached * BLOCK_CHARS;
}
