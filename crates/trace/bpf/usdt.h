/* Allocations of which a program tells by itself: the probes otel_memory:alloc and otel_memory:free.
 *
 * The program samples; each probe is a nop where its arguments are still to be had. Where, its note says,
 * and src/usdt.rs packs that into the cookie: three arguments, each of a kind, a register and an offset. */
#pragma once
#include "emit.h"
#include "stack.h"

enum {
	ARG_BITS = 21,
	ARG_CONSTANT = 0,
	ARG_REGISTER = 1,
	ARG_MEMORY = 2,
	REGISTERS = 21,
};

INLINE u64 argument(struct regs *r, u64 cookie, u32 which)
{
	u32 packed = cookie >> (which * ARG_BITS) & ((1 << ARG_BITS) - 1);
	u32 kind = packed & 3, is_narrow = packed >> 2 & 1, reg = packed >> 3 & 31;
	s64 offset = (s64)((u64)(packed >> 8) << 51) >> 51;
	u64 value = offset;
	if (kind != ARG_CONSTANT) {
		if (reg >= REGISTERS || read_kernel(&value, 8, (void *)r + reg * 8))
			return 0;
		if (kind == ARG_MEMORY && read_user(&value, 8, (void *)(value + offset)))
			return 0;
	}
	return is_narrow ? (u32)value : value;
}

SEC("uprobe")
int told_given(struct regs *r)
{
	u64 cookie = attach_cookie(r);
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	struct record *rec = scratch_of();
	if (!t || !rec || !has_room_for_samples())
		return 0;
	fill(&rec->event, KIND_ALLOC, t);
	rec->event.nr = 0;
	rec->event.ret = argument(r, cookie, 0);
	rec->event.args[1] = 0;
	rec->event.args[2] = argument(r, cookie, 1);
	rec->event.args[0] = argument(r, cookie, 2);
	name_stack(rec, t, r->ip, r->sp, r->bp);
	emit_record(rec);
	return 0;
}

SEC("uprobe")
int told_freed(struct regs *r)
{
	u64 at = argument(r, attach_cookie(r), 0);
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t || !has_room_for_samples())
		return 0;
	emit_short(t, KIND_FREE, at, RB_NO_WAKEUP);
	return 0;
}
