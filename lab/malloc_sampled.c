/* Leaks small chunks amid a churn, and tells of its allocations by itself, as an allocator that is built
 * with OpenTelemetry's probes does: one sample in 64 KiB, and the frees of what was sampled. */
#include "lab.h"
#include <malloc.h>

/* sys/sdt.h, as far as it is needed: a nop, and a note that says where it is and where its arguments are. */
#define PROBE(name, arguments, ...)                                                                    \
    __asm__ volatile("990: nop\n"                                                                      \
                     ".pushsection .note.stapsdt,\"?\",\"note\"\n"                                     \
                     ".balign 4\n.4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n"            \
                     "992: .balign 4\n993: .8byte 990b, _.stapsdt.base, sampler_users\n"               \
                     ".asciz \"otel_memory\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n"         \
                     "994: .balign 4\n.popsection\n"                                                   \
                     ".ifndef _.stapsdt.base\n"                                                        \
                     ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"           \
                     ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n_.stapsdt.base: .space 1\n"        \
                     ".popsection\n.endif\n" ::__VA_ARGS__)

/* Not zero while somebody listens. */
__attribute__((used)) unsigned short sampler_users __attribute__((section(".probes")));

enum { INTERVAL = 64 << 10, SLOTS = 256 };
static uint64_t held;
static struct slot {
    void *chunk;
    int sampled;
} ring[SLOTS];

static int sample(void *chunk, uint64_t bytes) {
    static uint64_t left = INTERVAL;
    if (!sampler_users || bytes < left) return left -= sampler_users ? bytes : 0, 0;
    uint64_t weight = (1 + (bytes - left) / INTERVAL) * INTERVAL;
    left += weight - bytes;
    PROBE("alloc", "8@%0 8@%1 8@%2", "r"(chunk), "r"(bytes), "m"(weight));
    return 1;
}

KEEP struct slot allocate(uint64_t bytes) {
    void *chunk = memset(malloc(bytes), 2, bytes);
    return (struct slot){chunk, sample(chunk, bytes)};
}

static void give_back(struct slot slot) {
    if (slot.sampled) PROBE("free", "8@%0", "r"(slot.chunk));
    free(slot.chunk);
}

KEEP void serve_request(void) {
    for (int i = 0; i < 20; i++) {
        struct slot *slot = &ring[lab_random(SLOTS)];
        give_back(*slot);
        *slot = allocate(16 + lab_random(8000));
    }
}

KEEP void keep_session(void) { held += malloc_usable_size(allocate(2000).chunk) + 8; }

int main(void) {
    while (lab_next(2000)) serve_request(), keep_session();
    lab_layer("heap_in_use", held);
    lab_function("keep_session");
    return lab_finish(1);
}
