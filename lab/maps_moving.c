/* Looks like a leak to nobody: maps, touches and unmaps as fast as it can beside memory that stays. */
#include "lab.h"
#include <malloc.h>
#include <pthread.h>

static volatile int over;
static uint64_t held, mapped;

/* A mapping that comes and goes, and one that grows, shrinks and moves. */
static void *map(void *unused) {
    while (!over) {
        uint64_t bytes = LAB_PAGE << lab_random(9);
        char *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        lab_touch(block, bytes);
        block = mremap(block, bytes, bytes * 2, MREMAP_MAYMOVE);
        lab_touch(block, bytes * 2);
        mprotect(block, bytes, PROT_READ);
        munmap(block + bytes, bytes);
        munmap(block, bytes);
    }
    return unused;
}

/* Heaps that grow and are trimmed. */
static void *heap(void *unused) {
    char *chunks[64] = {0};
    for (uint64_t n = 0; !over; n++) {
        uint64_t at = lab_random(64), bytes = 64 << lab_random(12);
        free(chunks[at]);
        chunks[at] = memset(malloc(bytes), 1, bytes);
        if (n % 500 == 0) malloc_trim(0);
    }
    for (int at = 0; at < 64; at++) free(chunks[at]);
    return unused;
}

static void *stack(void *unused) {
    volatile char room[128 << 10];
    lab_touch((void *)room, sizeof room);
    return unused;
}

static void *threads(void *unused) {
    pthread_t one;
    while (!over)
        if (!pthread_create(&one, NULL, stack, NULL)) pthread_join(one, NULL);
    return unused;
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(24 + lab_random(2000)));) {
        if (held > mapped) {
            bytes = 64 << 10;
            lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
            mapped += bytes;
        } else {
            char *chunk = memset(malloc(bytes), 1, bytes);
            held += malloc_usable_size(chunk) + 8;
        }
    }
    void *(*movers[])(void *) = {map, heap, threads};
    pthread_t running[3];
    for (int n = 0; n < 3; n++) pthread_create(&running[n], NULL, movers[n], NULL);
    lab_layer("heap_in_use", held), lab_layer("anonymous", mapped);
    lab_finish(0);
    over = 1;
    for (int n = 0; n < 3; n++) pthread_join(running[n], NULL);
    return 0;
}
