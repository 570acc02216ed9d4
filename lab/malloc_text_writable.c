/* Leaks malloc chunks, and makes the page of malloc's own code writable and back, 250 times a
 * second, as a library does that patches functions. Nothing is changed in it. */
#include "lab.h"
#include <malloc.h>

static uint64_t held;

KEEP void leak_chunk(uint64_t bytes) {
    char *chunk = malloc(bytes);
    memset(chunk, 1, bytes);
    held += malloc_usable_size(chunk) + 8;
}

static void patch_nothing(void) {
    char *page = (char *)((uintptr_t)malloc & ~(LAB_PAGE - 1));
    mprotect(page, LAB_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    mprotect(page, LAB_PAGE, PROT_READ | PROT_EXEC);
}

int main(void) {
    double next = lab_now();
    for (uint64_t bytes; (bytes = lab_next(1000));) {
        leak_chunk(bytes);
        if (lab_now() >= next) patch_nothing(), next = lab_now() + 0.004;
    }
    lab_layer("heap_in_use", held);
    lab_function("leak_chunk");
    return lab_finish(1);
}
