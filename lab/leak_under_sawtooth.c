/* Leaks below a sawtooth: a block is filled and given back, eight times as fast as it leaks. */
#include "lab.h"

KEEP void leak_below(uint64_t bytes) {
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
}

int main(void) {
    uint64_t tooth = lab.rate ? lab.rate * lab_number("LAB_TOOTH", 2) : 8ul << 20, at = 0, kept = 0, bytes;
    tooth = tooth / LAB_PAGE * LAB_PAGE;
    char *block = mmap(NULL, tooth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (; (bytes = lab_next(64 << 10) / LAB_PAGE * LAB_PAGE); kept += bytes) {
        leak_below(bytes);
        if (at + 8 * bytes > tooth) madvise(block, tooth, MADV_DONTNEED), at = 0;
        uint64_t fill = at + 8 * bytes > tooth ? tooth - at : 8 * bytes;
        lab_touch(block + at, fill);
        at += fill;
    }
    lab_layer("anonymous", kept + at);
    lab_function("leak_below");
    return lab_finish(1);
}
