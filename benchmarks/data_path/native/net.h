// Sockets and the wait for them.
#pragma once
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

#define EVENTS_PER_WAIT 256
// Edge-triggered and never changed: one epoll_ctl for a connection's whole life.
#define SOCKET_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

// Raises the soft limit of open files to the hard one and returns it.
static inline long raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur == RLIM_INFINITY ? 1 << 20 : (long)limit.rlim_cur;
}

static inline void watch(int epoll, int fd, uint32_t events, void *owner) {
    struct epoll_event event = {.events = events, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) perror("epoll_ctl");
}

static inline void send_without_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Waits for events until `due_ns` (a past time: only looks).
static inline int wait_events(int epoll, struct epoll_event *events, int64_t due_ns) {
    int64_t left = due_ns - now_ns();
    if (left < 0) left = 0;
    struct timespec timeout = {.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};
#ifdef SYS_epoll_pwait2
    long n = syscall(SYS_epoll_pwait2, epoll, events, EVENTS_PER_WAIT, &timeout, NULL, (size_t)0);
    if (n >= 0 || errno != ENOSYS) return n < 0 ? 0 : (int)n;
#endif
    // Before Linux 5.11 a wait has whole milliseconds: tokens leave up to 1 ms late.
    int n_ms = epoll_wait(epoll, events, EVENTS_PER_WAIT, (int)((left + NS_PER_MS - 1) / NS_PER_MS));
    return n_ms < 0 ? 0 : n_ms;
}
