/* Uses much of the main stack once: it stays resident. */
#include "lab.h"

KEEP uint64_t recurse(uint64_t depth) {
    volatile char frame[LAB_PAGE];
    lab_touch((void *)frame, sizeof frame);
    return depth ? recurse(depth - 1) + frame[0] : 0;
}

int main(void) {
    uint64_t bytes = 6 << 20;
    volatile uint64_t sum = recurse(bytes / (LAB_PAGE + 64));
    (void)sum;
    lab_layer("stacks", bytes);
    return lab_finish(0);
}
