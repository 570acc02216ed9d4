/* Reads a file through a mapping: clean pages, no leak. */
#include "lab.h"

int main(void) {
    uint64_t bytes = lab.bytes == UINT64_MAX ? 48ul << 20 : lab.bytes, taken, at = 0;
    FILE *file = tmpfile();
    char *block = malloc(1 << 20);
    memset(block, 1, 1 << 20);
    for (uint64_t done = 0; done < bytes; done += 1 << 20) fwrite(block, 1, 1 << 20, file);
    fflush(file), fsync(fileno(file));
    volatile char *mapped = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fileno(file), 0);
    while ((taken = lab_next(256 << 10)) && at < bytes)
        for (uint64_t end = at + taken; at < end; at += LAB_PAGE) (void)mapped[at];
    lab_layer("files", bytes);
    return lab_finish(0);
}
