// The load client: closed or open loop over keep-alive connections, one thread, every time taken at the read.
#define _GNU_SOURCE
#include "load_report.h"
#include "load_requests.h"

#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <signal.h>

#define RAMP_MAX_S 1.0

static struct user *add_user(void) {
    struct user *u = checked(calloc(1, sizeof *u));
    u->fd = -1;
    load.users = checked(realloc(load.users, (size_t)(load.user_count + 1) * sizeof *load.users));
    load.idle = checked(realloc(load.idle, (size_t)(load.user_count + 1) * sizeof *load.idle));
    load.users[load.user_count++] = u;
    return u;
}

static size_t waiting_count(void) { return (load.late_arrivals.len - load.late_taken) / sizeof(int64_t); }

static bool take_late_arrival(int64_t *intended_ns) {
    if (waiting_count() == 0) return false;
    memcpy(intended_ns, load.late_arrivals.data + load.late_taken, sizeof *intended_ns);
    load.late_taken += sizeof *intended_ns;
    if (load.late_taken == load.late_arrivals.len) load.late_taken = load.late_arrivals.len = 0;
    return true;
}

// Open loop: a connection that frees itself serves the arrival that waits longest. Through the timer, not by a call,
// so that a server that fails at once cannot nest requests in each other.
static void connection_is_free(struct user *u, int64_t now) {
    if (waiting_count()) timer_set(&load.due, &u->timer, now);
    else load.idle[load.idle_count++] = u;
}

static void user_is_free(struct user *u, int64_t now, bool failed) {
    if (is_open_loop()) {
        connection_is_free(u, now);
        return;
    }
    if (load.options.is_hold || now >= load.window_to_ns) return;
    int64_t think_ns = (int64_t)(load.options.think_ms * 1e6);
    if (failed && think_ns < REST_AFTER_ERROR_NS) think_ns = REST_AFTER_ERROR_NS;
    timer_set(&load.due, &u->timer, now + think_ns);
}

static void user_on_timer(struct user *u, int64_t now) {
    if (u->phase != IDLE) {
        request_end(u, now, "timeout");
        return;
    }
    int64_t intended_ns = now;
    if (is_open_loop() && !take_late_arrival(&intended_ns)) load.idle[load.idle_count++] = u;
    else if (is_open_loop() || now < load.window_to_ns) request_begin(u, intended_ns, now);
}

static void arrive(int64_t intended_ns, int64_t now) {
    if (load.idle_count) {
        request_begin(load.idle[--load.idle_count], intended_ns, now);
    } else if (load.user_count < load.options.max_open) {
        request_begin(add_user(), intended_ns, now);
    } else {
        buffer_add(&load.late_arrivals, (const char *)&intended_ns, sizeof intended_ns);
        if ((long)waiting_count() > load.waiting_max) load.waiting_max = (long)waiting_count();
    }
}

static void arrivals_until(int64_t now) {
    while (is_open_loop() && load.next_arrival_ns <= now && load.next_arrival_ns < load.window_to_ns) {
        arrive(load.next_arrival_ns, now);
        load.next_arrival_ns += (int64_t)(-log(random_share()) / load.options.rate * 1e9);
    }
}

static bool has_failed_to_connect(const struct user *u) {
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(u->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0;
}

static void user_on_event(struct user *u, uint32_t events) {
    bool is_gone = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (u->fd < 0) return;
    if (u->phase == CONNECTING && (events & (EPOLLOUT | EPOLLERR))) {
        if (has_failed_to_connect(u)) {
            connection_is_lost(u, now_ns());
            return;
        }
        u->phase = SENDING;
    }
    if (u->phase == SENDING && (events & EPOLLOUT)) user_send(u);
    if ((events & EPOLLIN) || is_gone) user_read(u, is_gone);
}

static bool is_finished(int64_t now) {
    if (load.options.is_hold) return load.ended == load.options.concurrency;
    return now >= load.end_ns || (now >= load.window_to_ns && load.open == 0 && waiting_count() == 0);
}

static int64_t next_due_ns(int64_t now) {
    struct timer *first = heap_first(&load.due);
    int64_t due = first ? first->due_ns : NEVER, bounds[] = {series_due_ns(), load.end_ns, load.next_arrival_ns, load.window_to_ns};
    for (size_t i = 0; i < 4; i++)
        if (bounds[i] < due && (i != 2 || bounds[i] < load.window_to_ns) && (i != 3 || now < load.window_to_ns)) due = bounds[i];
    return due < now + NS_PER_S ? due : now + NS_PER_S;
}

static void run(void) {
    struct epoll_event events[EVENTS_PER_WAIT];
    struct timer *t;
    for (int64_t now = now_ns(); !is_finished(now); series_write(now)) {
        int n = wait_events(load.epoll, events, next_due_ns(now));
        for (int i = 0; i < n; i++) user_on_event(events[i].data.ptr, events[i].events);
        now = now_ns();
        arrivals_until(now);
        while ((t = heap_take_due(&load.due, now)) != NULL) user_on_timer((struct user *)t, now);
    }
}

// What is still open after the grace: neither complete nor, yet, timed out.
static void count_unfinished(void) {
    for (long i = 0; i < load.user_count; i++)
        if (load.users[i]->phase != IDLE) count_error(load.users[i], "unfinished");
    for (size_t i = waiting_count(); i > 0; i--) count_error(&(struct user){.is_counted = true}, "unfinished");
}

static void resolve(void) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int failure = getaddrinfo(load.options.host, load.options.port, &hints, &found);
    if (failure) {
        fprintf(stderr, "%s:%s: %s\n", load.options.host, load.options.port, gai_strerror(failure));
        exit(2);
    }
    memcpy(&load.address, found->ai_addr, found->ai_addrlen);
    load.address_len = found->ai_addrlen;
    freeaddrinfo(found);
}

static void schedule_starts(void) {
    const struct options *o = &load.options;
    int64_t from = load.start_ns = now_ns();
    load.window_from_ns = o->is_hold ? NEVER : from + (int64_t)(o->warmup_s * 1e9);
    load.window_to_ns = o->is_hold ? NEVER : load.window_from_ns + (int64_t)(o->duration_s * 1e9);
    load.end_ns = o->is_hold ? NEVER : load.window_to_ns + (int64_t)(o->grace_s * 1e9);
    load.next_arrival_ns = is_open_loop() ? from : NEVER;
    double ramp_s = o->ramp_s >= 0 ? o->ramp_s : fmin(RAMP_MAX_S, o->warmup_s / 2);
    for (long i = 0; i < o->concurrency; i++)
        timer_set(&load.due, &add_user()->timer, from + (int64_t)(ramp_s * 1e9 * (double)i / (double)o->concurrency));
}

static const struct option OPTIONS[] = {
    {"host", 1, 0, 'h'},      {"port", 1, 0, 'p'},       {"path", 1, 0, 'a'},        {"model", 1, 0, 'm'},
    {"header", 1, 0, 'H'},    {"concurrency", 1, 0, 'c'}, {"rate", 1, 0, 'r'},        {"seed", 1, 0, 's'},
    {"max-open", 1, 0, 'o'},  {"duration", 1, 0, 'd'},   {"warmup", 1, 0, 'w'},      {"tokens", 1, 0, 't'},
    {"prompt", 1, 0, 'q'},    {"body-file", 1, 0, 'b'},  {"bodies-file", 1, 0, 'B'}, {"no-stream", 0, 0, 'n'},
    {"timeout-s", 1, 0, 'T'}, {"ramp-s", 1, 0, 'R'},     {"think-ms", 1, 0, 'k'},    {"grace-s", 1, 0, 'g'},
    {"any-length", 0, 0, 'l'}, {"series", 1, 0, 'S'},    {"hold", 0, 0, 'L'},        {0, 0, 0, 0}};

static void read_option(struct options *o, int option) {
    switch (option) {
    case 'h': o->host = optarg; break;
    case 'p': o->port = optarg; break;
    case 'a': o->path = optarg; break;
    case 'm': o->model = optarg; break;
    case 'H': buffer_print(&o->headers, "%s\r\n", optarg); break;
    case 'c': o->concurrency = atol(optarg); break;
    case 'r': o->rate = atof(optarg); break;
    case 's': o->seed = strtoull(optarg, NULL, 10); break;
    case 'o': o->max_open = atol(optarg); break;
    case 'd': o->duration_s = atof(optarg); break;
    case 'w': o->warmup_s = atof(optarg); break;
    case 't': o->tokens = atol(optarg); break;
    case 'q': o->prompt = optarg; break;
    case 'b': o->body_file = optarg; break;
    case 'B': o->bodies_file = optarg; break;
    case 'n': o->is_stream = false; break;
    case 'T': o->timeout_s = atof(optarg); break;
    case 'R': o->ramp_s = atof(optarg); break;
    case 'k': o->think_ms = atof(optarg); break;
    case 'g': o->grace_s = atof(optarg); break;
    case 'l': o->any_length = true; break;
    case 'S': o->series_file = optarg; break;
    case 'L': o->is_hold = true; break;
    default: exit(2);
    }
}

static void read_arguments(int argc, char **argv) {
    struct options *o = &load.options;
    *o = (struct options){.host = "127.0.0.1", .port = "8000", .path = "/v1/chat/completions", .model = "fake",
                          .prompt = "Say something.", .tokens = 64, .duration_s = 10, .warmup_s = 2, .timeout_s = 300,
                          .ramp_s = -1, .grace_s = 30, .max_open = 10000, .is_stream = true};
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) read_option(o, option);
    if ((o->concurrency > 0) != (o->rate > 0) && !(o->is_hold && o->rate > 0)) return;
    fprintf(stderr, "give either --concurrency (with --hold or without) or --rate\n");
    exit(2);
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    long files = raise_file_limit();
    if (load.options.max_open > files - 16) load.options.max_open = files - 16;
    signal(SIGPIPE, SIG_IGN);
    load.random = load.options.seed;
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    resolve();
    build_messages();
    series_open(load.options.series_file);
    schedule_starts();
    run();
    count_unfinished();
    print_report(now_ns());
    if (load.series) fclose(load.series);
}
