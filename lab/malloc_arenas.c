/* Leaks from threads: each takes its chunks from an arena of its own. */
#include "lab.h"
#include <malloc.h>
#include <pthread.h>

enum { THREADS = 6 };
static uint64_t held[THREADS];

KEEP void leak_in_arena(uint64_t *sum, uint64_t bytes) {
    void *chunk = malloc(bytes);
    memset(chunk, 1, bytes);
    *sum += malloc_usable_size(chunk) + 8;
}

static pthread_barrier_t full;
static void *run(void *sum) {
    uint64_t share = lab.bytes / THREADS;
    while (*(uint64_t *)sum < share) leak_in_arena(sum, 64 + *(uint64_t *)sum % 8000);
    pthread_barrier_wait(&full);
    pause();
    return NULL;
}

int main(void) {
    if (lab.bytes == UINT64_MAX) lab.bytes = 48ul << 20;
    pthread_barrier_init(&full, NULL, THREADS + 1);
    mallopt(M_ARENA_MAX, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, run, &held[i]);
    }
    pthread_barrier_wait(&full);
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++) sum += held[i];
    lab_layer("heap_in_use", sum);
    lab_function("leak_in_arena"), lab_function("run");
    return lab_finish(1);
}
