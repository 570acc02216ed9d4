/* Leaks large chunks of which a part was advised on, as numpy does: the kernel cuts the mapping in two. */
#include "lab.h"

static uint64_t held;

KEEP void leak_advised(uint64_t bytes) {
    char *chunk = malloc(bytes);
    madvise(chunk + LAB_PAGE - 16, (bytes - LAB_PAGE) / LAB_PAGE / 2 * LAB_PAGE, MADV_DONTDUMP);
    memset(chunk, 1, bytes);
    held += bytes + LAB_PAGE;
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(4 << 20));) leak_advised(bytes);
    lab_layer("heap_in_use", held);
    lab_function("leak_advised");
    return lab_finish(1);
}
