/* The story that Plumb was built for: a pool is registered once with UCX's registration cache on,
 * and a thread maps, touches and unmaps 64 KiB, DEMO_RATE times a second (0: as fast as it can).
 * UCX's hook on munmap queues every range for an invalidation that never comes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

enum { POOL = 1 << 20, PIECE = 64 << 10 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void check(ucs_status_t status, const char *what) {
    if (status == UCS_OK) return;
    fprintf(stderr, "%s: %s\n", what, ucs_status_string(status));
    exit(1);
}

static void serve_request(void) {
    void *piece = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece == MAP_FAILED) exit(1);
    memset(piece, 1, PIECE);
    munmap(piece, PIECE);
}

static void *churn(void *unused) {
    double rate = atof(getenv("DEMO_RATE") ? getenv("DEMO_RATE") : "5000"), begun = now();
    for (long n = 0;; n++) {
        serve_request();
        if (rate > 0 && n % 50 == 0) {
            double ahead = begun + n / rate - now();
            if (ahead > 0) usleep(ahead * 1e6);
        }
    }
    return unused;
}

int main(void) {
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_RMA};
    ucp_config_t *config;
    ucp_context_h context;
    check(ucp_config_read(NULL, NULL, &config), "ucp_config_read");
    check(ucp_init(&params, config, &context), "ucp_init");
    void *pool = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ucp_mem_map_params_t map = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH,
        .address = pool,
        .length = POOL,
    };
    ucp_mem_h memory;
    check(ucp_mem_map(context, &map, &memory), "ucp_mem_map");
    pthread_t thread;
    pthread_create(&thread, NULL, churn, NULL);
    sleep(atoi(getenv("DEMO_SECONDS") ? getenv("DEMO_SECONDS") : "600"));
    return 0;
}
