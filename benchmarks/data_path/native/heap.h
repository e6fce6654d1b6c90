// Timers by due time: a binary heap of pointers whose items know their place, so that any of them can leave.
#pragma once
#include <stdint.h>

#include "buffer.h"

struct timer {
    int64_t due_ns;
    size_t place;  // 1-based; 0 when not set
};

struct heap {
    struct timer **items;  // items[0] is unused
    size_t count, cap;
};

static inline void heap_put(struct heap *h, size_t place, struct timer *t) {
    h->items[place] = t;
    t->place = place;
}

static inline void heap_up(struct heap *h, size_t place, struct timer *t) {
    for (; place > 1 && h->items[place / 2]->due_ns > t->due_ns; place /= 2) heap_put(h, place, h->items[place / 2]);
    heap_put(h, place, t);
}

static inline void heap_down(struct heap *h, size_t place, struct timer *t) {
    for (size_t child; (child = place * 2) <= h->count; place = child) {
        if (child < h->count && h->items[child + 1]->due_ns < h->items[child]->due_ns) child++;
        if (h->items[child]->due_ns >= t->due_ns) break;
        heap_put(h, place, h->items[child]);
    }
    heap_put(h, place, t);
}

static inline void timer_clear(struct heap *h, struct timer *t) {
    if (t->place == 0) return;
    size_t place = t->place;
    struct timer *last = h->items[h->count--];
    t->place = 0;
    if (last == t) return;
    heap_down(h, place, last);
    heap_up(h, last->place, last);
}

static inline void timer_set(struct heap *h, struct timer *t, int64_t due_ns) {
    if (t->place != 0) {
        bool later = due_ns > t->due_ns;
        t->due_ns = due_ns;
        (later ? heap_down : heap_up)(h, t->place, t);
        return;
    }
    t->due_ns = due_ns;
    if (h->count + 1 >= h->cap) {
        h->cap = h->cap ? h->cap * 2 : 1024;
        h->items = checked(realloc(h->items, h->cap * sizeof *h->items));
    }
    heap_up(h, ++h->count, t);
}

static inline struct timer *heap_first(const struct heap *h) { return h->count ? h->items[1] : NULL; }

// Takes out and returns the first timer that is due, or NULL.
static inline struct timer *heap_take_due(struct heap *h, int64_t now) {
    struct timer *t = heap_first(h);
    if (t == NULL || t->due_ns > now) return NULL;
    timer_clear(h, t);
    return t;
}
