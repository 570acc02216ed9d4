/* Writes to a file through a shared mapping: dirty pages. */
#include "lab.h"

int main(void) {
    uint64_t bytes = lab.bytes == UINT64_MAX ? 48ul << 20 : lab.bytes;
    FILE *file = tmpfile();
    if (ftruncate(fileno(file), bytes)) abort();
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0), bytes);
    lab_layer("files", bytes);
    return lab_finish(0);
}
