/* The maps that the programs and userland share, and the counters. */
#pragma once
#include "layout.h"

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct target);
	__uint(map_flags, NO_PREALLOC);
} targets SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 131072);
	__type(key, struct rule_key);
	__type(value, struct rule);
	__uint(map_flags, NO_PREALLOC);
} rules SEC(".maps");

/* Stacks that userland has been given. */
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, u64);
	__type(value, u32);
} seen SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct python_layout);
	__uint(map_flags, NO_PREALLOC);
} pythons SEC(".maps");

/* Where a thread's Python state was found the last time. */
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, u64);
} python_threads SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 262144);
	__type(key, struct live_key);
	__type(value, struct live);
	__uint(map_flags, NO_PREALLOC);
} live SEC(".maps");

enum { RING_BYTES = 16 * 1024 * 1024 };
struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* One a processor; userland sets how many. A per-CPU map's values end at 32 KiB. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct record);
} scratch SEC(".maps");

enum counter { COUNT_EVENTS, COUNT_LOST, COUNT_COPIED, COUNT_PAIRED, COUNT_SKIPPED, COUNT_SPACES, COUNTERS };
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

INLINE void count(u32 which)
{
	u64 *n = map_lookup(&counters, &which);
	if (n)
		*n += 1;
}

/* A name that no other address space has: userland's are below the first processor's. */
INLINE u32 new_space(void)
{
	enum { OF_ONE_CPU = 20 };
	u32 which = COUNT_SPACES;
	u64 *n = map_lookup(&counters, &which);
	u32 mine = n ? (*n)++ : 0;
	return (this_cpu() + 1) << OF_ONE_CPU | (mine & ((1u << OF_ONE_CPU) - 1));
}

/* Allocations and page faults are samples: they leave half of the ring to what must not be lost. */
INLINE int has_room_for_samples(void)
{
	if (ring_query(&events, 0) < RING_BYTES / 2)
		return 1;
	count(COUNT_SKIPPED);
	return 0;
}

INLINE struct record *scratch_of(void)
{
	u32 cpu = this_cpu();
	return map_lookup(&scratch, &cpu);
}
