/* Short bursts of probes on an allocator: what was asked for, what was given, and by whom.
 *
 * While they are on, an mprotect that makes the probed text writable stops the target before it can
 * copy our breakpoints into a trampoline; userland takes the probes off and lets it go on. */
#pragma once
#include "emit.h"
#include "stack.h"

struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u64);
} asked SEC(".maps");

enum { SIGSTOP = 19, PROT_WRITE = 2 };

INLINE int ask(u64 bytes)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32, tid = (u32)id;
	if (!map_lookup(&targets, &tgid))
		return 0;
	map_update(&asked, &tid, &bytes, ANY);
	return 0;
}

SEC("uprobe")
int ask_malloc(struct regs *r)
{
	return ask(r->di);
}

SEC("uprobe")
int ask_calloc(struct regs *r)
{
	return ask(r->di * r->si);
}

SEC("uprobe")
int ask_realloc(struct regs *r)
{
	return ask(r->si);
}

SEC("uretprobe")
int given(struct regs *r)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32, tid = (u32)id;
	struct target *t = map_lookup(&targets, &tgid);
	u64 *bytes = map_lookup(&asked, &tid);
	struct record *rec = scratch_of();
	if (!t || !bytes || !rec || !r->ax)
		return 0;
	fill(&rec->event, KIND_ALLOC, t);
	rec->event.nr = 0;
	rec->event.args[0] = *bytes;
	rec->event.ret = r->ax;
	map_delete(&asked, &tid);
	name_stack(rec, t, r->ip, r->sp, r->bp);
	emit_record(rec);
	return 0;
}

/* Called at the entry of every mprotect of a target. */
INLINE void guard(struct config *c, struct target *t, struct regs *r)
{
	u64 start = r->di, end = r->di + r->si;
	if (!(r->dx & PROT_WRITE) || start >= c->guard_end || end <= c->guard_start)
		return;
	send_signal(SIGSTOP);
	emit_life(t, KIND_STOPPED, start);
}
