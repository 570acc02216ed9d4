/* Leaks in bursts: nothing for a while, then all that its rate has gathered at once. */
#include "lab.h"

KEEP void leak_burst(uint64_t bytes) {
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
}

int main(void) {
    uint64_t burst = lab.rate ? lab.rate * lab_number("LAB_EVERY", 3) / LAB_PAGE * LAB_PAGE : 1 << 20, kept = 0;
    for (uint64_t bytes; (bytes = lab_next(burst)); kept += bytes) leak_burst(bytes);
    lab_layer("anonymous", kept);
    lab_function("leak_burst");
    return lab_finish(1);
}
