/* Leaks mappings that have grown and moved: they are not where mmap put them. */
#include "lab.h"

KEEP void leak_grown(uint64_t bytes) {
    char *block = mmap(NULL, bytes / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lab_touch(block, bytes / 2);
    void *wall = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    block = mremap(block, bytes / 2, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, wall);
    if (block == MAP_FAILED) abort();
    lab_touch(block, bytes);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(512 << 10));) leak_grown(bytes);
    lab_layer("anonymous", lab.taken);
    lab_function("leak_grown");
    return lab_finish(1);
}
