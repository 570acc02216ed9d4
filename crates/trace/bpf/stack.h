/* Naming a stack by the return addresses on it, and copying it the first time it is seen.
 *
 * Userland unwinds with the modules' own unwind tables, and teaches these programs one rule a
 * program counter: where the caller's frame is. A stack whose every program counter has a rule is
 * walked here and named by a hash; it is copied only if that name is new. */
#pragma once
#include "maps.h"

INLINE u64 mix(u64 h, u64 v)
{
	h = (h ^ v) * 0xff51afd7ed558ccdull;
	return h ^ (h >> 32);
}

INLINE int is_known(u64 hash)
{
	return map_lookup(&seen, &hash) != 0;
}

/* Global functions are verified by themselves; those with pointers are not before Linux 5.12, so each
 * looks up what it works on. */
GLOBAL u64 thread_of(u32 tgid, u64 interp, u64 id)
{
	struct python_layout *l = map_lookup(&pythons, &tgid);
	u64 thread = 0;
	if (!l || read_user(&thread, 8, (void *)(interp + l->interp_threads)))
		return 0;
	for (int i = 0; i < 512; i++) {
		u64 owner = 0;
		if (!thread || read_user(&owner, 8, (void *)(thread + l->thread_id)))
			return 0;
		if (owner == id)
			return thread;
		if (read_user(&thread, 8, (void *)(thread + l->thread_next)))
			return 0;
	}
	return 0;
}

GLOBAL u64 find_thread(u32 tgid, u64 id)
{
	struct python_layout *l = map_lookup(&pythons, &tgid);
	u64 interp = 0;
	if (!l || read_user(&interp, 8, (void *)l->interpreters))
		return 0;
	for (int i = 0; i < 16 && interp; i++) {
		u64 thread = thread_of(tgid, interp, id);
		if (thread)
			return thread;
		if (read_user(&interp, 8, (void *)(interp + l->interp_next)))
			return 0;
	}
	return 0;
}

/* The Python state of the thread whose thread pointer is `id`: remembered, or searched for. */
INLINE u64 thread_state(struct python_layout *l, u32 tgid, u32 tid)
{
	struct task_struct *task = (void *)current_task();
	unsigned long id = 0;
	CORE_READ(id, task->thread.fsbase);
	u64 *known = map_lookup(&python_threads, &tid);
	u64 owner = 0;
	if (known && !read_user(&owner, 8, (void *)(*known + l->thread_id)) && owner == id)
		return *known;
	u64 found = find_thread(tgid, id);
	if (found)
		map_update(&python_threads, &tid, &found, ANY);
	return found;
}

/* Copies the thread's Python frames, innermost first, and returns their hash. */
GLOBAL u64 python_frames(u32 tgid, u32 tid)
{
	struct record *r = scratch_of();
	if (!r)
		return 0;
	struct stack *s = &r->stack;
	struct python_layout *l = map_lookup(&pythons, &tgid);
	if (!l)
		return 0;
	u64 thread = thread_state(l, tgid, tid);
	u64 frame = 0;
	if (!thread || read_user(&frame, 8, (void *)(thread + l->thread_frame)))
		return 0;
	if (l->cframe_frame != NONE && read_user(&frame, 8, (void *)(frame + l->cframe_frame)))
		return 0;
	u64 h = 0;
	u32 n = 0;
	for (u32 i = 0; i < PYTHON_MAX && frame; i++) {
		struct python_frame *f = &s->python[i];
		u64 owner = 0;
		if (read_user(&f->code, 8, (void *)(frame + l->frame_code)))
			break;
		if (read_user(&f->instr, 8, (void *)(frame + l->frame_instr)))
			break;
		if (l->frame_owner != NONE)
			read_user(&owner, 1, (void *)(frame + l->frame_owner));
		f->owner = owner;
		h = mix(mix(h, f->code), f->instr + owner);
		n = i + 1;
		if (read_user(&frame, 8, (void *)(frame + l->frame_back)))
			break;
	}
	s->python_frames = n;
	return h;
}

/* The name of the stack, or 0 where a program counter on it has no rule yet. */
GLOBAL u64 walk(u32 space, u64 pc, u64 sp, u64 bp, u64 h)
{
	u64 end = sp + STACK_MAX - FINE_PIECE - 16;
	h = mix(h, space);
	for (int i = 0; i < WALK_MAX; i++) {
		struct rule_key key = { .space = space, .pc = pc };
		struct rule *rule = map_lookup(&rules, &key);
		if (!rule)
			return 0;
		h = mix(h, pc);
		if (rule->flags & RULE_END)
			break;
		u64 cfa = (rule->flags & RULE_BP ? bp : sp) + (s64)rule->cfa;
		if (cfa <= sp || cfa > end)
			break;
		if (read_user(&pc, 8, (void *)(cfa - 8)))
			break;
		if (rule->bp && read_user(&bp, 8, (void *)(cfa + (s64)rule->bp)))
			break;
		sp = cfa;
	}
	return h ? h : 1;
}

/* Copies the stack upwards from sp rounded down. A page that was never touched, as within a large
 * array, cannot be read here: it is all zero. What is counted lies in memory, where the verifier
 * does not follow it along every path. */
GLOBAL int copy_stack(void)
{
	struct record *r = scratch_of();
	if (!r)
		return 0;
	u64 base = r->stack.sp & ~(u64)(FINE_PIECE - 1);
	r->stack.bytes = 0;
	r->stack.unread = 0;
	for (u32 i = 0; i < STACK_PIECES && r->stack.unread < STACK_UNREAD; i++) {
		u32 at = i * STACK_PIECE;
		if (!read_user(r->bytes + at, STACK_PIECE, (void *)(base + at))) {
			r->stack.bytes = at + STACK_PIECE;
			r->stack.unread = 0;
			continue;
		}
		r->stack.unread++;
		for (u32 j = 0; j < STACK_PIECE; j += FINE_PIECE) {
			/* What could not be read is zeroed by the helper. */
			if (!read_user(r->bytes + at + j, FINE_PIECE, (void *)(base + at + j)))
				r->stack.bytes = at + j + FINE_PIECE;
		}
	}
	return 0;
}

/* While a function's return is probed its return address on the stack is the kernel's own trampoline.
 * The kernel keeps the true ones, the innermost call first. */
GLOBAL int copy_returns(void)
{
	struct record *r = scratch_of();
	struct task_struct *task = (void *)current_task();
	struct uprobe_task *utask = 0;
	struct return_instance *call = 0;
	if (!r)
		return 0;
	struct stack *s = &r->stack;
	s->hijacked = 0;
	if (!CORE_HAS(task->utask))
		return 0;
	CORE_READ(utask, task->utask);
	if (!utask)
		return 0;
	CORE_READ(call, utask->return_instances);
	for (u32 i = 0; i < RETURNS_MAX && call; i++) {
		unsigned long at = 0, to = 0;
		CORE_READ(at, call->stack);
		CORE_READ(to, call->orig_ret_vaddr);
		s->returns[i].at = at;
		s->returns[i].to = to;
		s->hijacked = i + 1;
		CORE_READ(call, call->next);
	}
	return 0;
}

#include "go.h"

/* Fills in the stack's name and, where it has none or a new one, marks it for copying. */
INLINE void name_stack(struct record *r, struct target *t, u64 ip, u64 sp, u64 bp)
{
	struct stack *s = &r->stack;
	s->ip = ip;
	s->sp = sp;
	s->bp = bp;
	s->python_frames = 0;
	s->python_hash = 0;
	if (t->flags & TARGET_PYTHON)
		s->python_hash = python_frames(r->event.tgid, r->event.tid);
	else if (t->flags & TARGET_GO)
		s->python_hash = go_frames();
	u64 h = walk(t->space, ip, sp, bp, s->python_hash);
	r->event.stack = h;
	r->event.flags = HAS_STACK | (h ? HASHED : 0);
}

INLINE void emit_record(struct record *r)
{
	u64 hash = r->event.stack;
	u64 size = sizeof(struct event);
	u64 wake = RB_NO_WAKEUP;
	if (!(r->event.flags & HASHED) || !is_known(hash)) {
		copy_stack();
		copy_returns();
		u32 got = r->stack.bytes;
		r->event.flags |= WITH_STACK;
		if (got > STACK_MAX)
			return;
		size = sizeof(struct event) + sizeof(struct stack) + got;
		/* Userland learns from it, and the next one like it is then cheap. */
		wake = RB_FORCE_WAKEUP;
		count(COUNT_COPIED);
	}
	if (ring_output(&events, r, size, wake)) {
		count(COUNT_LOST);
		return;
	}
	count(COUNT_EVENTS);
	if (r->event.flags & HASHED) {
		u32 one = 1;
		map_update(&seen, &hash, &one, ANY);
	}
}
