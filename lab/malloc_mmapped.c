/* Leaks chunks so large that malloc maps each of them. */
#include "lab.h"
#include <malloc.h>

static uint64_t held;

KEEP void *leak_block(uint64_t bytes) {
    void *block = malloc(bytes);
    lab_touch(block, bytes);
    held += malloc_usable_size(block) + 16;
    return block;
}

int main(void) {
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) leak_block(bytes);
    lab_layer("heap_in_use", held);
    lab_function("leak_block");
    return lab_finish(1);
}
