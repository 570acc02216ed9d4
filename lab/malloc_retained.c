/* Seems to leak: frees everything, but one live chunk at the top keeps the heap from shrinking. */
#include "lab.h"
#include <malloc.h>

int main(void) {
    void **all = NULL, *pin;
    uint64_t count = 0, bytes, freed = 0;
    while ((bytes = lab_next(1000))) {
        if (!(count & (count - 1))) all = realloc(all, 2 * (count + 1) * sizeof *all);
        all[count] = malloc(bytes);
        memset(all[count++], 1, bytes);
    }
    pin = malloc(100);
    for (uint64_t i = 0; i < count; i++) freed += malloc_usable_size(all[i]) + lab_header(), free(all[i]);
    lab_layer("heap_retained", freed);
    memset(pin, 1, 100);
    free(all);
    return lab_finish(0);
}
