/* Seems to leak: fills a block, gives its pages back with MADV_DONTNEED, fills it again. */
#include "lab.h"

int main(void) {
    uint64_t tooth = lab_number("LAB_TOOTH", 16ul << 20), at = 0, taken;
    char *block = mmap(NULL, tooth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    while ((taken = lab_next(64 << 10))) {
        if (at + taken > tooth) madvise(block, tooth, MADV_DONTNEED), at = 0;
        lab_touch(block + at, taken);
        at += taken;
    }
    lab_layer("anonymous", at);
    return lab_finish(0);
}
