/* Leaks pipes with what nobody has read from them: the kernel's memory. */
#include "lab.h"
#include <sys/resource.h>

KEEP void leak_pipe(uint64_t bytes) {
    int ends[2];
    char *block = calloc(1, bytes);
    if (pipe(ends) || write(ends[1], block, bytes) < 0) abort();
    close(ends[1]);
    free(block);
}

int main(void) {
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    for (uint64_t bytes; (bytes = lab_next(64 << 10));) leak_pipe(bytes);
    lab_beyond("sockets", lab.taken);
    lab_function("leak_pipe");
    return lab_finish(1);
}
