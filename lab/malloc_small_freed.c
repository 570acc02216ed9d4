/* Seems to leak: every second small chunk is freed into tcache and fastbins, which glibc marks as
 * live in its headers. */
#include "lab.h"
#include <malloc.h>

int main(void) {
    uint64_t count = lab.bytes / 48, live = 0, freed = 0;
    char **all = malloc(count * sizeof *all);
    for (uint64_t i = 0; i < count; i++) memset(all[i] = malloc(40), 1, 40);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t *sum = i % 2 ? &freed : &live;
        *sum += malloc_usable_size(all[i]) + lab_header();
        if (i % 2) free(all[i]);
    }
    lab_layer("heap_in_use", live + malloc_usable_size(all) + lab_header());
    lab_layer("heap_retained", freed);
    return lab_finish(0);
}
