/* Leaks anonymous executable memory, as a compiler at run time does. */
#include "lab.h"

KEEP void leak_code(uint64_t bytes) {
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(64 << 10));) leak_code(bytes);
    lab_layer("jit", lab.taken);
    lab_function("leak_code");
    return lab_finish(1);
}
