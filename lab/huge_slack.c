/* Seems to leak: one byte in every 512 KiB, under transparent huge pages. */
#include "lab.h"

enum { HUGE = 2 << 20, STEP = 512 << 10 };

int main(void) {
    uint64_t most = lab.rate ? 64ul << 30 : lab.bytes / HUGE * HUGE, at = 0;
    char *block = mmap(NULL, most + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block = (char *)(((uintptr_t)block + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
    madvise(block, most, MADV_HUGEPAGE);
    while (at < most && lab_next(HUGE) == HUGE)
        for (uint64_t end = at + HUGE; at < end; at += STEP) block[at] = 1;
    uint64_t written = at / STEP * LAB_PAGE;
    lab_layer("huge_page_slack", at - written);
    lab_layer("anonymous", written);
    return lab_finish(0);
}
