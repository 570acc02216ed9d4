/* Leaks mappings below a large array that is hardly touched: its stack has pages that never were. */
#include "lab.h"

KEEP void leak_below_array(uint64_t bytes) {
    volatile char unused[24 << 10];
    unused[0] = 1;
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lab_touch(block, bytes);
    unused[1] = unused[0];
}

KEEP void handle_request(uint64_t bytes) {
    leak_below_array(bytes);
    __asm__ volatile("");
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(256 << 10));) handle_request(bytes);
    lab_layer("anonymous", lab.taken);
    lab_function("leak_below_array");
    return lab_finish(1);
}
