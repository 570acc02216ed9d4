/* The goroutine behind the runtime's own stack.
 *
 * Go's runtime maps and grows on a stack of the thread's, to which `systemstack`, `mcall` and cgo's calls
 * switch. Where the goroutine's own stack goes on is in `m.curg.sched`; compiled code keeps frame pointers.
 * The layout is runtime/runtime2.go's: `g.m` and `g.sched` have stayed where they are, and `gobuf` lost a
 * field (`ret`), which moves all behind it: a goroutine that names its thread back tells which. */
#pragma once
#include "maps.h"

enum {
	GO_G = -8, /* in the thread's own storage */
	G_M = 48,
	G_SCHED = 56,
	M_CURG = 184,
	GOBUF_BP = 40,
	GO_RET = 8,
};

/* Copies the goroutine's return addresses, innermost first, and returns their hash. */
GLOBAL u64 go_frames(void)
{
	struct record *r = scratch_of();
	struct task_struct *task = (void *)current_task();
	unsigned long storage = 0;
	u64 g = 0, m = 0, g0 = 0, curg = 0, owner = 0, bp = 0, more = GO_RET;
	if (!r)
		return 0;
	struct stack *s = &r->stack;
	CORE_READ(storage, task->thread.fsbase);
	if (read_user(&g, 8, (void *)(storage + GO_G)) || read_user(&m, 8, (void *)(g + G_M)) ||
	    read_user(&g0, 8, (void *)m) || g != g0)
		return 0;
	if (read_user(&curg, 8, (void *)(m + M_CURG + more)) ||
	    read_user(&owner, 8, (void *)(curg + G_M)) || owner != m) {
		more = 0;
		if (read_user(&curg, 8, (void *)(m + M_CURG)) ||
		    read_user(&owner, 8, (void *)(curg + G_M)) || owner != m)
			return 0;
	}
	if (curg == g0 || read_user(&bp, 8, (void *)(curg + G_SCHED + GOBUF_BP + more)))
		return 0;
	u64 h = 0;
	u32 n = 0;
	for (u32 i = 0; i < PYTHON_MAX && bp; i++) {
		struct python_frame *f = &s->python[i];
		u64 next = 0;
		if (read_user(&f->code, 8, (void *)(bp + 8)) || read_user(&next, 8, (void *)bp))
			break;
		f->instr = 0;
		f->owner = 0;
		h = mix(h, f->code);
		n = i + 1;
		if (next <= bp)
			break;
		bp = next;
	}
	s->python_frames = n;
	return h;
}
