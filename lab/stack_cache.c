/* Seems to leak: the threads have ended, glibc keeps their stacks for the next ones. */
#include "lab.h"
#include <pthread.h>

enum { THREADS = 16, USED = 1 << 20 };
static pthread_barrier_t all;

KEEP void use_stack(void) {
    volatile char block[USED];
    lab_touch((void *)block, USED);
}

static void *run(void *nothing) {
    use_stack();
    pthread_barrier_wait(&all);
    return nothing;
}

int main(void) {
    pthread_t threads[THREADS];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 2 * USED);
    pthread_barrier_init(&all, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], &small, run, NULL);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    /* A joined thread's stack above its last frames stays resident: 1 MiB is given back of each. */
    return lab_finish(0);
}
