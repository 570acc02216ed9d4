// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/* Who maps, unmaps, grows and touches memory, for a set of processes and their children.
 *
 * Raw tracepoints, because they need no tracefs and hand over the user's registers. One comparison
 * decides for every other syscall on the machine, so what is not ours costs next to nothing. */
#include "layout.h"
#include "maps.h"
#include "emit.h"
#include "stack.h"
#include "alloc.h"
#include "usdt.h"
#include "files.h"

enum {
	SYS_mmap = 9,
	SYS_mprotect = 10,
	SYS_munmap = 11,
	SYS_brk = 12,
	SYS_mremap = 25,
	SYS_madvise = 28,
	SYS_shmat = 30,
	SYS_shmdt = 67,
	SYS_memfd_create = 319,
	SYS_pkey_mprotect = 329,
};

INLINE struct config *config_of(void)
{
	u32 zero = 0;
	return map_lookup(&config, &zero);
}

/* At rates at which even small events would cost too much: whole ranges are paired here, and
 * userland compares what is left with the target's maps. */
INLINE void pair_map(struct event *e)
{
	struct live_key key = { .tgid = e->tgid, .start = e->ret };
	struct live value = { .bytes = (e->args[1] + 4095) & ~4095ull, .stack = e->stack, .time_ns = e->time_ns };
	map_update(&live, &key, &value, ANY);
	count(COUNT_PAIRED);
}

INLINE void pair_unmap(u32 tgid, u64 start, u64 bytes)
{
	struct live_key key = { .tgid = tgid, .start = start };
	struct live *was = map_lookup(&live, &key);
	if (was && was->bytes > bytes) {
		struct live_key rest_key = { .tgid = tgid, .start = start + bytes };
		struct live rest = { .bytes = was->bytes - bytes, .stack = was->stack,
				     .time_ns = was->time_ns };
		map_update(&live, &rest_key, &rest, ANY);
	}
	map_delete(&live, &key);
	count(COUNT_PAIRED);
}

SEC("raw_tp/sys_enter")
int enter(struct raw_args *ctx)
{
	u64 nr = ctx->args[1];
	if (nr != SYS_munmap && nr != SYS_mremap && nr != SYS_shmdt && nr != SYS_mprotect &&
	    nr != SYS_pkey_mprotect)
		return 0;
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t)
		return 0;
	struct regs r;
	if (read_kernel(&r, sizeof(r), (void *)ctx->args[0]) || r.cs != USER_64)
		return 0;
	struct config *c = config_of();
	if (nr == SYS_mprotect || nr == SYS_pkey_mprotect) {
		if (c)
			guard(c, t, &r);
		return 0;
	}
	if (c && c->counting && nr == SYS_munmap) {
		pair_unmap(tgid, r.di, (r.si + 4095) & ~4095ull);
		return 0;
	}
	emit_bare(t, KIND_ENTER_SYSCALL, nr, &r, 0);
	return 0;
}

INLINE int wants_stack(u64 nr)
{
	return nr == SYS_mmap || nr == SYS_brk || nr == SYS_mremap || nr == SYS_shmat ||
	       nr == SYS_memfd_create || nr == SYS_mprotect;
}

SEC("raw_tp/sys_exit")
int leave(struct raw_args *ctx)
{
	u64 nr;
	if (read_kernel(&nr, sizeof(nr), &((struct regs *)ctx->args[0])->orig_ax))
		return 0;
	if (writes(nr))
		return written(ctx);
	if (nr != SYS_mmap && nr != SYS_brk && nr != SYS_mremap && nr != SYS_madvise &&
	    nr != SYS_shmat && nr != SYS_shmdt && nr != SYS_memfd_create && nr != SYS_mprotect &&
	    nr != SYS_munmap)
		return 0;
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t)
		return 0;
	s64 ret = ctx->args[1];
	/* A munmap was told at its entry; only its failure is news. */
	if (ret < 0 ? (nr != SYS_munmap && nr != SYS_mremap && nr != SYS_shmdt) && ret >= -4095
		    : nr == SYS_munmap || nr == SYS_shmdt)
		return 0;
	struct config *c = config_of();
	if (!c || (nr == SYS_mprotect && !c->mprotect))
		return 0;
	struct regs r;
	if (read_kernel(&r, sizeof(r), (void *)ctx->args[0]) || r.cs != USER_64)
		return 0;
	if (!wants_stack(nr) || (ret < 0 && ret >= -4095)) {
		emit_bare(t, KIND_EXIT_SYSCALL, nr, &r, ret);
		return 0;
	}
	struct record *rec = scratch_of();
	if (!rec)
		return 0;
	struct event *e = &rec->event;
	fill(e, KIND_EXIT_SYSCALL, t);
	e->nr = nr;
	e->args[0] = r.di;
	e->args[1] = r.si;
	e->args[2] = r.dx;
	e->args[3] = r.r10;
	e->args[4] = r.r8;
	e->args[5] = r.r9;
	e->ret = ret;
	name_stack(rec, t, r.ip, r.sp, r.bp);
	if (c->counting && nr == SYS_mmap && (e->flags & HASHED) && is_known(e->stack)) {
		pair_map(e);
		return 0;
	}
	emit_record(rec);
	return 0;
}

SEC("raw_tp/page_fault_user")
int fault(struct raw_args *ctx)
{
	struct config *c = config_of();
	if (!c || !c->fault_shift)
		return 0;
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t)
		return 0;
	/* By address, not by count: which pages are sampled does not depend on who touches them. */
	u64 page = ctx->args[0] >> 12;
	u64 mixed = page * 0x9e3779b97f4a7c15ull;
	if (mixed >> (64 - (c->fault_shift & 31)) || !has_room_for_samples())
		return 0;
	struct regs r;
	if (read_kernel(&r, sizeof(r), (void *)ctx->args[1]) || r.cs != USER_64)
		return 0;
	struct record *rec = scratch_of();
	if (!rec)
		return 0;
	fill(&rec->event, KIND_FAULT, t);
	rec->event.nr = 0;
	rec->event.args[0] = ctx->args[0];
	rec->event.args[1] = ctx->args[2];
	rec->event.ret = 0;
	name_stack(rec, t, r.ip, r.sp, r.bp);
	emit_record(rec);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int forked(struct raw_args *ctx)
{
	struct task_struct *child = (void *)ctx->args[1];
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t || t->flags & TARGET_NO_CHILDREN)
		return 0;
	u32 child_pid = 0, child_tgid = 0;
	CORE_READ(child_pid, child->pid);
	CORE_READ(child_tgid, child->tgid);
	if (!child_pid || child_pid != child_tgid)
		return 0;
	struct target copy = *t;
	if (map_update(&targets, &child_tgid, &copy, ANY)) {
		count(COUNT_LOST);
		return 0;
	}
	struct python_layout *layout = map_lookup(&pythons, &tgid);
	if (layout)
		map_update(&pythons, &child_tgid, layout, ANY);
	emit_life(&copy, KIND_FORK, child_tgid);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int execed(struct raw_args *ctx)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	if (!t)
		return 0;
	t->space = new_space();
	t->flags &= ~(TARGET_PYTHON | TARGET_GO);
	emit_life(t, KIND_EXEC, 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int exited(struct raw_args *ctx)
{
	u64 id = pid_tgid();
	u32 tgid = id >> 32;
	if (tgid != (u32)id)
		return 0;
	struct target *t = map_lookup(&targets, &tgid);
	if (t)
		emit_life(t, KIND_EXIT, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
