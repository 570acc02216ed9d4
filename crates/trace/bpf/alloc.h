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

/* By thread, and by function: one may call another, and what the outer one gives is what counts. */
struct asked_key {
	u32 tid;
	u32 function;
};

struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct asked_key);
	__type(value, struct asked);
} asked SEC(".maps");

enum { SIGSTOP = 19, PROT_WRITE = 2 };

INLINE int ask(u32 function, u64 bytes, u64 old, u64 out)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32;
	struct asked_key key = { .tid = (u32)id, .function = function };
	if (!map_lookup(&targets, &tgid))
		return 0;
	struct asked a = { .bytes = bytes, .old = old, .out = out };
	map_update(&asked, &key, &a, ANY);
	return 0;
}

/* What was given since the bursts began: who gives something else back need not be told of. */
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u32);
} sampled SEC(".maps");

/* Tells of an allocation at a place, and by whom: `old` is what it replaces. */
INLINE void tell_given(struct record *rec, struct target *t, struct regs *r, u64 at, u64 bytes, u64 old)
{
	fill(&rec->event, KIND_ALLOC, t);
	rec->event.nr = 0;
	rec->event.args[0] = rec->event.args[2] = bytes;
	rec->event.args[1] = old;
	rec->event.ret = at;
	name_stack(rec, t, r->ip, r->sp, r->bp);
	emit_record(rec);
}

INLINE int give(struct regs *r, u32 function)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32;
	struct asked_key key = { .tid = (u32)id, .function = function };
	struct target *t = map_lookup(&targets, &tgid);
	struct asked *a = map_lookup(&asked, &key);
	struct record *rec = scratch_of();
	if (!t || !a || !rec || !has_room_for_samples())
		return 0;
	u64 at = r->ax;
	if (a->out && (at || read_user(&at, 8, (void *)a->out)))
		return 0;
	if (!at)
		return 0;
	u64 bytes = a->bytes, old = a->old;
	map_delete(&asked, &key);
	u32 one = 1;
	map_update(&sampled, &at, &one, ANY);
	tell_given(rec, t, r, at, bytes, old);
	return 0;
}

/* glibc writes a chunk's size before it: no probe at the entry is needed. */
INLINE int give_chunk(struct regs *r)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	struct record *rec = scratch_of();
	u64 head = 0;
	if (!t || !has_room_for_samples() || !rec || !r->ax || read_user(&head, 8, (void *)(r->ax - 8)) || head < 32)
		return 0;
	tell_given(rec, t, r, r->ax, (head & ~7ull) - 8, 0);
	return 0;
}

/* For how many bytes an object of Python's is said to stand, and a block that may become one. */
enum { OBJECT = 1, BLOCK = 2 };

/* An object of Python's: its pool knows its size, and where its block begins. */
INLINE int give_object(struct regs *r)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	struct record *rec = scratch_of();
	if (!t || !has_room_for_samples() || !rec || !r->ax)
		return 0;
	tell_given(rec, t, r, r->ax, OBJECT, 0);
	return 0;
}

/* A block of Python's, in a register, where an inlined copy of its allocator takes it off its pool. */
INLINE int give_block(struct regs *r, u32 number)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	struct record *rec = scratch_of();
	u64 at = 0;
	/* Read one after the other: a pointer into the registers that depends on the number is refused. */
#define REGISTER(n, name)                          \
	{                                          \
		u64 value = r->name;               \
		asm volatile("" : "+r"(value));    \
		if (number == (n))                 \
			at = value;                \
	}
	REGISTER(0, ax) REGISTER(1, cx) REGISTER(2, dx) REGISTER(3, bx) REGISTER(5, bp)
	REGISTER(6, si) REGISTER(7, di) REGISTER(8, r8) REGISTER(9, r9) REGISTER(10, r10)
	REGISTER(11, r11) REGISTER(12, r12) REGISTER(13, r13) REGISTER(14, r14) REGISTER(15, r15)
#undef REGISTER
	if (!t || !has_room_for_samples() || !rec || !at)
		return 0;
	tell_given(rec, t, r, at, BLOCK, 0);
	return 0;
}

/* One program is on many functions. The cookie's low byte says which kind of function it is, as `Ask`
 * and `Give` of src/allocators.rs, the rest which one; of a copy, the rest is the register. */
enum { COOKIE_FUNCTION = 8, COOKIE_KIND = 0xff };

SEC("uprobe")
int asks(struct regs *r)
{
	u64 cookie = attach_cookie(r);
	u32 function = cookie >> COOKIE_FUNCTION;
	switch (cookie & COOKIE_KIND) {
	case 0:
		return ask(function, r->di, 0, 0);
	case 1:
		return ask(function, r->di * r->si, 0, 0);
	case 2:
		return ask(function, r->si, r->di, 0);
	case 3:
		return ask(function, r->si, 0, 0);
	case 5:
		return ask(function, r->si * r->dx, 0, 0);
	case 6:
		return ask(function, r->dx, r->si, 0);
	case 7:
		return give_block(r, function);
	default:
		return ask(function, r->dx, 0, r->di);
	}
}

SEC("uretprobe")
int gives(struct regs *r)
{
	u64 cookie = attach_cookie(r);
	switch (cookie & COOKIE_KIND) {
	case 0:
		return give(r, cookie >> COOKIE_FUNCTION);
	case 1:
		return give_chunk(r);
	default:
		return give_object(r);
	}
}

/* free, and all that are like it; the cookie says whether a context comes before the address. */
SEC("uprobe")
int frees(struct regs *r)
{
	/* Read before the call: a pointer into the registers that depends on it is refused. */
	u64 first = r->di, second = r->si;
	u64 at = attach_cookie(r) ? second : first;
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t || !map_lookup(&sampled, &at) || !has_room_for_samples())
		return 0;
	map_delete(&sampled, &at);
	emit_short(t, KIND_FREE, at, RB_NO_WAKEUP);
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
