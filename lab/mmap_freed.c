/* Maps and unmaps; under munmap_preload.so nothing goes away. */
#include "lab.h"

KEEP void serve_request(uint64_t bytes) {
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lab_touch(block, bytes);
    munmap(block, bytes);
}

int main(void) {
    int leaks = getenv("LD_PRELOAD") != NULL;
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) serve_request(bytes);
    lab_layer("anonymous", leaks ? lab.taken : 0);
    lab_function("serve_request");
    return lab_finish(leaks);
}
