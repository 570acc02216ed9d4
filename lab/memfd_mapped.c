/* Leaks memfds that are mapped. */
#include "lab.h"

KEEP void leak_region(uint64_t bytes) {
    int file = memfd_create("lab-mapped", 0);
    if (ftruncate(file, bytes)) abort();
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), bytes);
    close(file);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(2 << 20));) leak_region(bytes);
    lab_layer("shared", lab.taken);
    lab_function("leak_region");
    return lab_finish(1);
}
