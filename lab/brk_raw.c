/* Leaks raw brk memory between pieces of malloc's heap, outside malloc's records. */
#include "lab.h"
#include <malloc.h>

static uint64_t live;

KEEP void leak_brk(uint64_t bytes) { memset(sbrk(bytes), 1, bytes); }

int main(void) {
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) {
        leak_brk(bytes);
        for (int i = 0; i < 8; i++) {
            void *chunk = malloc(100000);
            memset(chunk, 1, 100000);
            live += malloc_usable_size(chunk) + 8;
        }
    }
    lab_layer("anonymous", lab.taken);
    lab_layer("heap_in_use", live);
    lab_function("leak_brk");
    return lab_finish(1);
}
