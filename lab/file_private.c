/* Leaks pages of a file that it maps privately and writes to: copies that the file does not back, as of a
   model's weights that are patched in memory. */
#include "lab.h"

static int file;

KEEP void *patch_privately(uint64_t bytes) {
    void *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    lab_touch(copy, bytes);
    return copy;
}

int main(void) {
    const uint64_t piece = 256 << 10;
    FILE *backing = tmpfile();
    file = fileno(backing);
    if (ftruncate(file, piece)) abort();
    for (uint64_t bytes; (bytes = lab_next(piece));) patch_privately(bytes);
    lab_layer("anonymous", lab.taken);
    lab_function("patch_privately");
    return lab_finish(1);
}
