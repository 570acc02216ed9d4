/* Leaks shared anonymous mappings. */
#include "lab.h"

KEEP void leak_shared(uint64_t bytes) {
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), bytes);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) leak_shared(bytes);
    lab_layer("shared", lab.taken);
    lab_function("leak_shared");
    return lab_finish(1);
}
