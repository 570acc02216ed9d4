/* Leaks raw anonymous mappings, as a library with an allocator of its own does. */
#include "lab.h"

KEEP void *leak_mapping(uint64_t bytes) {
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lab_touch(block, bytes);
    return block;
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(256 << 10));) leak_mapping(bytes);
    lab_layer("anonymous", lab.taken);
    lab_function("leak_mapping");
    return lab_finish(1);
}
