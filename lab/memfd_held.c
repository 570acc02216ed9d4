/* Leaks memfds that are written and never mapped: RSS stays flat. */
#include "lab.h"

KEEP int leak_memfd(uint64_t bytes) {
    static char block[1 << 20];
    int file = memfd_create("lab-held", 0);
    memset(block, 1, sizeof block);
    for (uint64_t done = 0; done < bytes; done += sizeof block)
        if (write(file, block, bytes - done < sizeof block ? bytes - done : sizeof block) < 0) abort();
    return file;
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) leak_memfd(bytes);
    lab_beyond("memfd_unmapped", lab.taken);
    lab_function("leak_memfd");
    return lab_finish(1);
}
