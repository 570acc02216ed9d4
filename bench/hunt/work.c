/* A fixed amount of work, timed from the line that tells it to start, so that attaching costs it
 * nothing. COUNT times: `work malloc COUNT` allocates, touches and frees 16 to 527 bytes; `work mmap
 * COUNT LOOPS` maps, touches and unmaps 64 KiB after LOOPS rounds of arithmetic; `work pace COUNT RATE`
 * does so without arithmetic, RATE times a second. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void allocate(void **ring, uint64_t n) {
    size_t at = n % 512, bytes = 16 + n * 2654435761u % 512;
    free(ring[at]);
    memset(ring[at] = malloc(bytes), 1, bytes);
}

static void map(uint64_t loops) {
    for (uint64_t i = 0; i < loops; i++) sink = sink * 6364136223846793005u + i;
    char *piece = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *piece = 1;
    munmap(piece, 64 << 10);
}

int main(int count, char **argument) {
    int allocates = !strcmp(argument[1], "malloc"), paced = !strcmp(argument[1], "pace");
    uint64_t times = strtoull(argument[2], NULL, 10);
    uint64_t loops = count > 3 ? strtoull(argument[3], NULL, 10) : 0;
    static void *ring[512];
    puts("ready");
    fflush(stdout);
    getchar();
    double begun = now();
    for (uint64_t n = 0; n < times; n++) {
        allocates ? allocate(ring, n) : map(paced ? 0 : loops);
        double ahead = paced && n % 100 == 99 ? begun + (double)n / loops - now() : 0;
        if (ahead > 0) usleep(ahead * 1e6);
    }
    printf("%.6f\n", now() - begun);
    fflush(stdout);
    getchar();
    return 0;
}
