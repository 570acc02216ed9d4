/* Leaks malloc chunks where brk cannot grow: malloc maps pieces of its main arena instead. */
#include "lab.h"
#include <malloc.h>

static uint64_t held;

KEEP void *leak_chunk(uint64_t bytes) {
    char *chunk = malloc(bytes);
    memset(chunk, 1, bytes);
    held += malloc_usable_size(chunk) + 8;
    return chunk;
}

static void block_brk(void) {
    uintptr_t end = ((uintptr_t)sbrk(0) + LAB_PAGE - 1) / LAB_PAGE * LAB_PAGE;
    mmap((void *)end, LAB_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

int main(void) {
    leak_chunk(100);
    block_brk();
    for (uint64_t bytes; (bytes = lab_next(24 + lab_random(4000)));) leak_chunk(bytes);
    lab_layer("heap_in_use", held);
    lab_function("leak_chunk");
    return lab_finish(1);
}
