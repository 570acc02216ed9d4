/* Leaks three quarters of every mapping: only its first quarter is unmapped. */
#include "lab.h"

KEEP void leak_rest(uint64_t bytes) {
    uint64_t whole = bytes / 3 * 4;
    char *block = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lab_touch(block, whole);
    munmap(block, whole / 4);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(768 << 10)) == 768 << 10;) leak_rest(bytes);
    lab_layer("anonymous", lab.taken / (768 << 10) * (768 << 10));
    lab_function("leak_rest");
    return lab_finish(1);
}
