// The result as one JSON object, and the series of seconds.
#pragma once
#include "load_state.h"

static void print_quantiles(const char *name, const struct histogram *h) {
    static const struct { const char *name; double share; } QUANTILES[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}};
    if (h->count == 0) {
        printf("\"%s\":null,", name);
        return;
    }
    printf("\"%s\":{", name);
    for (size_t i = 0; i < 3; i++) printf("\"%s\":%.6f,", QUANTILES[i].name, histogram_quantile_ns(h, QUANTILES[i].share) / 1e6);
    printf("\"max\":%.6f,\"mean\":%.6f},", (double)h->max_ns / 1e6, h->sum_ns / (double)h->count / 1e6);
}

static void print_errors(const char *name, const struct error_count *errors) {
    printf("\"%s\":{", name);
    for (size_t i = 0; i < KINDS_MAX && errors[i].count; i++)
        printf("%s\"%s\":%llu", i ? "," : "", errors[i].kind, (unsigned long long)errors[i].count);
    printf("},");
}

static double window_s(int64_t now) {
    if (load.window_from_ns == NEVER) return 0;
    int64_t to = load.window_to_ns < now ? load.window_to_ns : now;
    return to > load.window_from_ns ? (double)(to - load.window_from_ns) / 1e9 : 0;
}

static void print_report(int64_t now) {
    printf("{\"requests\":%llu,", (unsigned long long)load.requests);
    print_errors("errors", load.errors);
    print_errors("warmup_errors", load.warmup_errors);
    printf("\"tokens\":%llu,\"seconds\":%.6f,", (unsigned long long)load.tokens, window_s(now));
    print_quantiles("ttft_ms", &load.ttft);
    print_quantiles("itl_ms", &load.itl);
    print_quantiles("e2e_ms", &load.e2e);
    if (load.longest_gap.count)
        printf("\"itl_max_per_stream_p95\":%.6f,", histogram_quantile_ns(&load.longest_gap, 0.95) / 1e6);
    else printf("\"itl_max_per_stream_p95\":null,");
    printf("\"open_max\":%ld,\"streaming_max\":%ld,\"waiting_max\":%ld,", load.open_max, load.streaming_max, load.waiting_max);
    printf("\"reads\":%llu,\"coalesced\":%llu,\"client_cpu_s\":%.6f}\n", (unsigned long long)load.reads,
           (unsigned long long)load.coalesced, cpu_s());
}

static void series_open(const char *path) {
    if (path == NULL) return;
    load.series = fopen(path, "w");
    if (load.series == NULL) {
        perror(path);
        exit(2);
    }
}

static int64_t series_due_ns(void) {
    return load.series ? load.start_ns + (load.series_second + 1) * NS_PER_S : NEVER;
}

// Writes the seconds that are over; what came in a late one counts in the first of them.
static void series_write(int64_t now) {
    while (series_due_ns() <= now) {
        fprintf(load.series, "{\"t_s\":%lld,\"tokens\":%llu,\"open\":%ld,\"errors\":%llu}\n", (long long)load.series_second,
                (unsigned long long)load.second_tokens, load.open, (unsigned long long)load.second_errors);
        fflush(load.series);
        load.series_second++;
        load.second_tokens = load.second_errors = 0;
    }
}
