/* Leaks small chunks amid a churn of bigger ones: who makes the heap grow is rarely who keeps it. */
#include "lab.h"
#include <malloc.h>

static uint64_t held;
static void *ring[256];

KEEP void serve_request(void) {
    for (int i = 0; i < 20; i++) {
        unsigned slot = lab_random(256);
        free(ring[slot]);
        size_t bytes = 16 + lab_random(8000);
        ring[slot] = memset(malloc(bytes), 2, bytes);
    }
}

KEEP void keep_session(void) {
    char *chunk = malloc(2000);
    memset(chunk, 1, 2000);
    held += malloc_usable_size(chunk) + lab_header();
}

int main(void) {
    while (lab_next(2000)) serve_request(), keep_session();
    lab_layer("heap_in_use", held);
    lab_function("keep_session");
    return lab_finish(1);
}
