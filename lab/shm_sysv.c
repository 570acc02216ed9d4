/* Leaks System V segments; they end with the process that maps them. */
#include "lab.h"
#include <sys/shm.h>

KEEP void leak_segment(uint64_t bytes) {
    int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
    void *block = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
    lab_touch(block, bytes);
}

int main(void) {
    for (uint64_t bytes; (bytes = lab_next(4 << 20));) leak_segment(bytes);
    lab_layer("shared", lab.taken);
    lab_function("leak_segment");
    return lab_finish(1);
}
