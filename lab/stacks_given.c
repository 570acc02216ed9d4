/* Seems to leak nothing: threads on stacks that the program gave them, in .bss and in shared memory. */
#include "lab.h"
#include <pthread.h>

#define THREADS 8
#define DEEP (1ul << 20)
#define ROOM (DEEP + (64ul << 10))

static char given[THREADS / 2][ROOM] __attribute__((aligned(4096)));
static pthread_barrier_t deep;

static void *use(void *unused) {
    volatile char room[DEEP];
    lab_touch((void *)room, DEEP);
    pthread_barrier_wait(&deep);
    pause();
    return unused;
}

int main(void) {
    pthread_barrier_init(&deep, NULL, THREADS + 1);
    for (int n = 0; n < THREADS; n++) {
        void *stack = n < THREADS / 2 ? given[n]
            : mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setstack(&attributes, stack, ROOM);
        pthread_create(&thread, &attributes, use, NULL);
    }
    pthread_barrier_wait(&deep);
    lab_layer("stacks", THREADS * (DEEP + 2 * LAB_PAGE));
    return lab_finish(0);
}
