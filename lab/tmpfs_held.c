/* Leaks files of /dev/shm that are unlinked and held by a descriptor only. */
#include "lab.h"
#include <fcntl.h>

KEEP void leak_file(uint64_t bytes) {
    char name[64], *block = calloc(1, bytes);
    snprintf(name, sizeof name, "/dev/shm/plumb-lab-%d", getpid());
    int file = open(name, O_CREAT | O_RDWR | O_EXCL, 0600);
    unlink(name);
    if (write(file, memset(block, 1, bytes), bytes) < 0) abort();
    free(block);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) leak_file(bytes);
    lab_beyond("tmpfs_unmapped", lab.taken);
    lab_function("leak_file");
    return lab_finish(1);
}
