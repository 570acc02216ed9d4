/* What every event begins with, and events without a stack. */
#pragma once
#include "maps.h"

INLINE void fill(struct event *e, u32 kind, struct target *t)
{
	u64 id = pid_tgid();
	e->kind = kind;
	e->tgid = id >> 32;
	e->tid = (u32)id;
	e->time_ns = ktime_ns();
	e->space = t->space;
}

/* An event without a stack. */
INLINE void emit_bare(struct target *t, u32 kind, u32 nr, struct regs *r, s64 ret)
{
	struct event *e = ring_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	fill(e, kind, t);
	e->nr = nr;
	e->args[0] = r->di;
	e->args[1] = r->si;
	e->args[2] = r->dx;
	e->args[3] = r->r10;
	e->args[4] = r->r8;
	e->args[5] = r->r9;
	e->ret = ret;
	e->stack = 0;
	e->flags = 0;
	ring_submit(e, RB_NO_WAKEUP);
	count(COUNT_EVENTS);
}

INLINE void emit_short(struct target *t, u32 kind, u64 arg, u64 wake)
{
	struct event *e = ring_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	fill(e, kind, t);
	e->nr = 0;
	e->args[0] = arg;
	e->ret = 0;
	e->stack = 0;
	e->flags = 0;
	ring_submit(e, wake);
	count(COUNT_EVENTS);
}

INLINE void emit_life(struct target *t, u32 kind, u64 arg)
{
	emit_short(t, kind, arg, RB_FORCE_WAKEUP);
}
