/* Short bursts of probes on an allocator: what was asked for, what was given, and by whom.
 *
 * While they are on, an mprotect that makes the probed text writable stops the target before it can
 * copy our breakpoints into a trampoline; userland takes the probes off and lets it go on. */
#pragma once
#include "emit.h"
#include "stack.h"

struct asked {
	u64 bytes;
	u64 old; /* what realloc was given */
	u64 out; /* where posix_memalign puts its result; 0: it returns it */
};

struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct asked);
} asked SEC(".maps");

enum { SIGSTOP = 19, PROT_WRITE = 2 };

INLINE int ask(u64 bytes, u64 old, u64 out)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32, tid = (u32)id;
	if (!map_lookup(&targets, &tgid))
		return 0;
	struct asked a = { .bytes = bytes, .old = old, .out = out };
	map_update(&asked, &tid, &a, ANY);
	return 0;
}

SEC("uprobe")
int ask_malloc(struct regs *r)
{
	return ask(r->di, 0, 0);
}

SEC("uprobe")
int ask_calloc(struct regs *r)
{
	return ask(r->di * r->si, 0, 0);
}

SEC("uprobe")
int ask_realloc(struct regs *r)
{
	return ask(r->si, r->di, 0);
}

/* aligned_alloc and memalign */
SEC("uprobe")
int ask_aligned(struct regs *r)
{
	return ask(r->si, 0, 0);
}

SEC("uprobe")
int ask_posix(struct regs *r)
{
	return ask(r->dx, 0, r->di);
}

SEC("uretprobe")
int given(struct regs *r)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32, tid = (u32)id;
	struct target *t = map_lookup(&targets, &tgid);
	struct asked *a = map_lookup(&asked, &tid);
	struct record *rec = scratch_of();
	if (!t || !a || !rec || !has_room_for_samples())
		return 0;
	u64 at = r->ax;
	if (a->out && (at || read_user(&at, 8, (void *)a->out)))
		return 0;
	if (!at)
		return 0;
	fill(&rec->event, KIND_ALLOC, t);
	rec->event.nr = 0;
	rec->event.args[0] = a->bytes;
	rec->event.args[1] = a->old;
	rec->event.ret = at;
	map_delete(&asked, &tid);
	name_stack(rec, t, r->ip, r->sp, r->bp);
	emit_record(rec);
	return 0;
}

/* glibc writes a chunk's size before it: no probe at the entry is needed. */
SEC("uretprobe")
int given_chunk(struct regs *r)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	struct record *rec = scratch_of();
	u64 head = 0;
	if (!t || !has_room_for_samples() || !rec || !r->ax || read_user(&head, 8, (void *)(r->ax - 8)) || head < 32)
		return 0;
	fill(&rec->event, KIND_ALLOC, t);
	rec->event.nr = 0;
	rec->event.args[0] = (head & ~7ull) - 8;
	rec->event.args[1] = 0;
	rec->event.ret = r->ax;
	name_stack(rec, t, r->ip, r->sp, r->bp);
	emit_record(rec);
	return 0;
}

/* Called at the entry of every mprotect of a target. */
INLINE void guard(struct config *c, struct target *t, struct regs *r)
{
	u64 start = r->di, end = r->di + r->si;
	if (!(r->dx & PROT_WRITE))
		return;
#pragma unroll
	for (int i = 0; i < GUARDS; i++) {
		if (start < c->guard[i].end && end > c->guard[i].start) {
			send_signal(SIGSTOP);
			emit_life(t, KIND_STOPPED, start);
			return;
		}
	}
}
