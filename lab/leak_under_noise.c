/* Leaks one chunk now and then, under the noise of ordinary allocation. */
#include "lab.h"
#include <malloc.h>

enum { SLOTS = 4096, LARGEST = 6 << 10, LEAK = 4 << 10 };

static char *slots[SLOTS];

KEEP void *leak_chunk(uint64_t bytes) { return memset(malloc(bytes), 1, bytes); }

static void work(void) {
    for (int i = 0; i < 16; i++) {
        char **slot = &slots[lab_random(SLOTS)];
        uint64_t bytes = 16 + lab_random(LARGEST);
        free(*slot);
        memset(*slot = malloc(bytes), 1, bytes);
    }
}

int main(void) {
    uint64_t kept = 0, bytes;
    while ((bytes = lab_next(LEAK))) {
        work();
        kept += malloc_usable_size(leak_chunk(bytes)) + 8;
    }
    for (int i = 0; i < SLOTS; i++) kept += slots[i] ? malloc_usable_size(slots[i]) + 8 : 0;
    lab_layer("heap_in_use", kept);
    lab_layer("heap_retained", mallinfo2().fordblks);
    lab_function("leak_chunk");
    return lab_finish(1);
}
