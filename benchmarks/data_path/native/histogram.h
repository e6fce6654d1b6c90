// Counts of durations in log-linear buckets: quantiles within 0.05 %, maximum and mean exact.
#pragma once
#include <stdint.h>

#define SUB_BUCKET_BITS 10
#define SUB_BUCKETS (1 << SUB_BUCKET_BITS)

struct histogram {
    uint64_t counts[(65 - SUB_BUCKET_BITS) * SUB_BUCKETS];
    uint64_t count;
    int64_t max_ns;
    double sum_ns;
};

static inline unsigned histogram_bucket(uint64_t ns) {
    if (ns < SUB_BUCKETS) return (unsigned)ns;
    unsigned shift = 63u - SUB_BUCKET_BITS - (unsigned)__builtin_clzll(ns);
    return (shift + 1) * SUB_BUCKETS + (unsigned)(ns >> shift) - SUB_BUCKETS;
}

static inline double histogram_middle_ns(unsigned bucket) {
    if (bucket < SUB_BUCKETS) return bucket;
    unsigned shift = bucket / SUB_BUCKETS - 1;
    return ((double)(bucket % SUB_BUCKETS) + SUB_BUCKETS + 0.5) * (double)(1ULL << shift);
}

static inline void histogram_add(struct histogram *h, int64_t ns) {
    if (ns < 0) ns = 0;
    h->counts[histogram_bucket((uint64_t)ns)]++;
    h->count++;
    h->sum_ns += (double)ns;
    if (ns > h->max_ns) h->max_ns = ns;
}

// The smallest duration that at least `share` of all are no longer than.
static inline double histogram_quantile_ns(const struct histogram *h, double share) {
    uint64_t rank = (uint64_t)(share * (double)h->count), seen = 0;
    if ((double)rank < share * (double)h->count) rank++;
    if (rank == 0) rank = 1;
    for (unsigned i = 0; i < sizeof h->counts / sizeof *h->counts; i++) {
        seen += h->counts[i];
        if (seen < rank) continue;
        double middle = histogram_middle_ns(i);
        return middle < (double)h->max_ns ? middle : (double)h->max_ns;
    }
    return 0;
}
