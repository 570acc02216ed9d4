/* Leaks System V segments that nobody has attached: they are in nobody's RSS, and stay until they are removed.
 * A child removes them when this process is no more, however it ended. */
#include "lab.h"
#include <signal.h>
#include <sys/shm.h>

static int made;

static void guard(void) {
    int ends[2], id;
    if (pipe(ends)) abort();
    if (fork()) {
        close(ends[0]);
        made = ends[1];
        return;
    }
    static int ids[8192];
    int count = 0;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    close(0), close(1), close(2), close(ends[1]);
    while (count < 8192 && read(ends[0], &id, sizeof id) == sizeof id) ids[count++] = id;
    while (count) shmctl(ids[--count], IPC_RMID, NULL);
    _exit(0);
}

KEEP void leak_segment(uint64_t bytes) {
    int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
    if (write(made, &id, sizeof id) != sizeof id) abort();
    void *block = shmat(id, NULL, 0);
    lab_touch(block, bytes);
    shmdt(block);
}

int main(void) {
    guard();
    for (uint64_t bytes; (bytes = lab_next(1 << 20));) leak_segment(bytes);
    lab_beyond("tmpfs_unmapped", lab.taken);
    lab_function("leak_segment");
    return lab_finish(1);
}
