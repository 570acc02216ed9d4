/* Leaks in one child of several; the parent and the other children stay flat. */
#include "lab.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { CHILDREN = 5, LEAKS = 3 };

KEEP void leak_in_child(uint64_t bytes) {
    lab_touch(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
}

int main(void) {
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        if ((children[i] = fork())) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (i != LEAKS) return pause();
        for (uint64_t bytes; (bytes = lab_next(256 << 10));) leak_in_child(bytes);
        lab_layer("anonymous", lab.taken);
        lab_function("leak_in_child");
        return lab_finish(1);
    }
    while (!lab_wait(1)) {}
    waitpid(children[LEAKS], NULL, 0);
    return 0;
}
