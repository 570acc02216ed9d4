/* Leaks System V segments that nobody has attached: they are in nobody's RSS, and stay until they are removed. */
#include "lab.h"
#include <signal.h>
#include <sys/shm.h>

static int segments[8192], made;

static void remove_all(void) {
    while (made) shmctl(segments[--made], IPC_RMID, NULL);
}

static void killed(int signal) {
    (void)signal;
    remove_all();
    _exit(1);
}

KEEP void leak_segment(uint64_t bytes) {
    int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
    void *block = shmat(id, NULL, 0);
    segments[made++] = id;
    lab_touch(block, bytes);
    shmdt(block);
}

int main(void) {
    atexit(remove_all);
    signal(SIGTERM, killed);
    for (uint64_t bytes; made < 8192 && (bytes = lab_next(1 << 20));) leak_segment(bytes);
    lab_beyond("tmpfs_unmapped", lab.taken);
    lab_function("leak_segment");
    return lab_finish(1);
}
