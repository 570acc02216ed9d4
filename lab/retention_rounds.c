/* Seems to leak: rounds of allocation, each larger than the last, each freed; the allocator keeps it. */
#include "lab.h"
#include <malloc.h>

enum { CHUNK = 1000, STEP = 1 << 20 };

struct chunk { struct chunk *next; };

int main(void) {
    struct chunk *held = NULL;
    uint64_t round = STEP, most = 0, taken, in_round = 0;
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    do {
        taken = lab_next(CHUNK);
        if (taken == CHUNK && in_round < round) {
            struct chunk *chunk = malloc(CHUNK);
            memset(chunk, 1, CHUNK);
            in_round += malloc_usable_size(chunk) + 8;
            chunk->next = held, held = chunk;
            continue;
        }
        most = in_round > most ? in_round : most;
        for (struct chunk *next; held; held = next) next = held->next, free(held);
        in_round = 0, round += STEP;
    } while (taken);
    lab_layer("heap_retained", most);
    return lab_finish(0);
}
