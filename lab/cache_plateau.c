/* Seems to leak: a cache fills, then replaces its oldest entries. */
#include "lab.h"
#include <malloc.h>

enum { ENTRY = 8 << 10 };

int main(void) {
    uint64_t limit = lab_number("LAB_CACHE", 24ul << 20) / ENTRY, held = 0;
    char **cache = calloc(limit, sizeof *cache);
    for (uint64_t i = 0, bytes; (bytes = lab_next(ENTRY)); i++) {
        char **slot = &cache[i % limit];
        free(*slot);
        memset(*slot = malloc(ENTRY), 1, ENTRY);
    }
    for (uint64_t i = 0; i < limit; i++) held += cache[i] ? malloc_usable_size(cache[i]) + 8 : 0;
    lab_layer("heap_in_use", held);
    return lab_finish(0);
}
