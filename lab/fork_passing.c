/* A leak: mappings that stay, while workers are forked that take as much, and end. */
#include "lab.h"
#include <sys/wait.h>

KEEP static void leak_mapping(uint64_t bytes) {
    char *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) abort();
    lab_touch(block, bytes);
}

KEEP static void work(void) {
    const uint64_t bytes = 1 << 20;
    for (int i = 0; i < 12; i++) {
        char *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) abort();
        lab_touch(block, bytes);
        usleep(100000);
    }
}

int main(void) {
    uint64_t bytes, taken = 0;
    double next = lab_now();
    /* The last worker is to have ended before this does. */
    double last = lab.begun + lab.seconds - 4;
    while ((bytes = lab_next(16 * LAB_PAGE))) {
        leak_mapping(bytes);
        taken += bytes;
        if (lab_now() > next && lab_now() < last) {
            next = lab_now() + 1;
            if (fork() == 0) {
                work();
                _exit(0);
            }
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    lab_layer("anonymous", taken);
    lab_function("leak_mapping");
    return lab_finish(1);
}
