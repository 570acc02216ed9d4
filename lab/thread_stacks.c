/* Leaks threads: each has used much of its stack and waits for ever. */
#include "lab.h"
#include <pthread.h>
#include <semaphore.h>

enum { USED = 1 << 20 };
static sem_t used;

KEEP void use_stack(void) {
    volatile char block[USED];
    lab_touch((void *)block, USED);
}

static void *run(void *nothing) {
    use_stack();
    sem_post(&used);
    pause();
    return nothing;
}

KEEP void leak_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL)) abort();
    sem_wait(&used);
}

int main(void) {
    sem_init(&used, 0, 0);
    while (lab_next(USED)) leak_thread();
    lab_layer("stacks", lab.taken);
    lab_function("leak_thread"), lab_function("use_stack");
    return lab_finish(1);
}
