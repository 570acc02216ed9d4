/* Grows one buffer by realloc, which moves its mapping, amid a churn of small chunks. */
#include "lab.h"
#include <malloc.h>

static char *buffer;
static uint64_t bytes;
static void *ring[256];

KEEP void grow_buffer(uint64_t more) {
    buffer = realloc(buffer, bytes + more);
    memset(buffer + bytes, 1, more);
    bytes += more;
}

KEEP void serve_request(void) {
    for (int i = 0; i < 20; i++) {
        unsigned slot = lab_random(256);
        free(ring[slot]);
        size_t size = 16 + lab_random(3000);
        ring[slot] = memset(malloc(size), 2, size);
    }
}

int main(void) {
    for (uint64_t more; (more = lab_next(20000));) grow_buffer(more), serve_request();
    lab_layer("heap_in_use", malloc_usable_size(buffer) + 16);
    lab_function("grow_buffer");
    return lab_finish(1);
}
