/* What every C program of the lab shares: how much, how fast, until when, and the truth at the end.
 * See README.md for the convention. */
#ifndef LAB_H
#define LAB_H
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LAB_PAGE 4096ul
#define KEEP __attribute__((noinline, noclone, used))

static struct {
    uint64_t bytes, rate, seed, taken;
    double seconds, begun;
    char layers[512], beyond[256], functions[256];
} lab;

static double lab_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static uint64_t lab_number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* Bytes of a chunk before what may be used of it, as its allocator counts them: glibc's, or as said. */
static inline uint64_t lab_header(void) { return lab_number("LAB_HEADER", 8); }

static void __attribute__((constructor)) lab_start(void) {
    lab.rate = lab_number("LAB_RATE", 0);
    lab.bytes = lab_number("LAB_BYTES", lab.rate ? UINT64_MAX : 48ul << 20);
    lab.seconds = lab_number("LAB_SECONDS", 30);
    lab.seed = lab_number("LAB_SEED", 1) * 0x9e3779b97f4a7c15ul + 1;
    lab.begun = lab_now();
}

static uint64_t lab_random(uint64_t below) {
    lab.seed ^= lab.seed << 13, lab.seed ^= lab.seed >> 7, lab.seed ^= lab.seed << 17;
    return lab.seed % below;
}

/* Waits at most that long; whether the program must end: standard input closed, or time is over. */
static int lab_wait(double seconds) {
    double left = lab.begun + lab.seconds - lab_now();
    if (left <= 0) return 1;
    struct pollfd in = {.fd = 0, .events = POLLIN};
    double wait = seconds < left ? seconds : left;
    return poll(&in, 1, wait <= 0 ? 0 : (int)(wait * 1000) + 1) > 0 || wait == left;
}

/* How many bytes to take next, at most `piece`, in the pace of LAB_RATE; 0 when all are taken. */
static uint64_t lab_next(uint64_t piece) {
    if (lab.taken >= lab.bytes) return 0;
    if (lab.rate) {
        double due = lab.begun + (double)lab.taken / lab.rate - lab_now();
        if (lab_wait(due > 0 ? due : 0)) return 0;
    }
    uint64_t left = lab.bytes - lab.taken;
    piece = piece < left ? piece : left;
    lab.taken += piece;
    return piece;
}

static void lab_touch(void *block, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += LAB_PAGE) ((volatile char *)block)[at] = (char)(at >> 12 | 1);
}

static void lab_pair(char *list, size_t size, const char *name, uint64_t bytes) {
    size_t used = strlen(list);
    snprintf(list + used, size - used, "%s\"%s\":%lu", used ? "," : "", name, (unsigned long)bytes);
}
/* The truth: resident bytes of a layer, bytes beyond RSS, a function that holds them. */
#define lab_layer(name, bytes) lab_pair(lab.layers, sizeof lab.layers, name, bytes)
#define lab_beyond(name, bytes) lab_pair(lab.beyond, sizeof lab.beyond, name, bytes)
static void lab_function(const char *name) {
    size_t used = strlen(lab.functions);
    snprintf(lab.functions + used, sizeof lab.functions - used, "%s\"%s\"", used ? "," : "", name);
}

/* Prints the truth and, unless it grew for a time, stays as it is until told to end. */
static int lab_finish(int leak) {
    printf("{\"program\":\"%s\",\"pid\":%d,\"seconds\":%.3f,\"leak\":%s,\"layers\":{%s},"
           "\"beyond_rss\":{%s},\"functions\":[%s]}\n",
           program_invocation_short_name, getpid(), lab_now() - lab.begun, leak ? "true" : "false",
           lab.layers, lab.beyond, lab.functions);
    fflush(stdout);
    while (!lab_wait(1)) {}
    return 0;
}
#endif
