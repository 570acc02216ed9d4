/* Seems to leak: reserves address space that nothing touches. */
#include "lab.h"

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(1 << 20));)
        mmap(NULL, bytes << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    lab_layer("anonymous", 0);
    return lab_finish(0);
}
