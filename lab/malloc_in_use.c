/* Leaks small malloc chunks of many sizes. */
#include "lab.h"
#include <malloc.h>

static uint64_t held;

KEEP void *leak_chunk(uint64_t bytes) {
    char *chunk = malloc(bytes);
    memset(chunk, 1, bytes);
    held += malloc_usable_size(chunk) + lab_header();
    return chunk;
}

KEEP void serve(void) {
    for (uint64_t bytes; (bytes = lab_next(24 + lab_random(1000)));) leak_chunk(bytes);
}

int main(void) {
    serve();
    lab_layer("heap_in_use", held);
    lab_function("leak_chunk"), lab_function("serve");
    return lab_finish(1);
}
