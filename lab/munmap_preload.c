/* Built as a library to be preloaded: it interposes munmap and puts it off for ever. */
#define _GNU_SOURCE
#include <stddef.h>

int munmap(void *block, size_t bytes) {
    (void)block, (void)bytes;
    return 0;
}
