/* A forked child writes to what it shares with its parent: each page becomes a copy of its own. No
 * process's resident memory grows, the machine's does. No leak: it ends where nothing is shared. */
#include "lab.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { SHARED = 256 << 20 };

KEEP void write_to_shared(char *shared, uint64_t bytes) { lab_touch(shared, bytes); }

int main(void) {
    char *shared = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(shared, SHARED, MADV_NOHUGEPAGE);
    lab_touch(shared, SHARED);
    pid_t child = fork();
    if (child) {
        waitpid(child, NULL, 0);
        return 0;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (lab.bytes > SHARED) lab.bytes = SHARED;
    uint64_t done = 0;
    for (uint64_t bytes; (bytes = lab_next(64 << 10)); done += bytes) write_to_shared(shared + done, bytes);
    lab_layer("anonymous", (uint64_t)SHARED);
    lab_function("write_to_shared");
    return lab_finish(0);
}
