/* Who writes to files that live in memory: tmpfs and memfds, whose pages stay without any mapping. */
#pragma once
#include "emit.h"
#include "stack.h"

enum {
	SYS_write = 1,
	SYS_pwrite64 = 18,
	SYS_writev = 20,
	SYS_sendfile = 40,
	SYS_splice = 275,
	SYS_fallocate = 285,
	SYS_pwritev = 296,
	SYS_copy_file_range = 326,
	SYS_pwritev2 = 328,
	TMPFS_MAGIC = 0x01021994,
};

struct super_block {
	unsigned long s_magic;
} CORE;

struct inode {
	struct super_block *i_sb;
} CORE;

struct file {
	struct inode *f_inode;
} CORE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} CORE;

struct files_struct {
	struct fdtable *fdt;
} CORE;

INLINE int writes(u64 nr)
{
	return nr == SYS_write || nr == SYS_pwrite64 || nr == SYS_writev || nr == SYS_sendfile ||
	       nr == SYS_splice || nr == SYS_fallocate || nr == SYS_pwritev ||
	       nr == SYS_copy_file_range || nr == SYS_pwritev2;
}

/* Whether a descriptor of the current task is a file in memory. */
INLINE int in_memory(u32 fd)
{
	struct task_struct *task = (void *)current_task();
	struct files_struct *files = 0;
	struct fdtable *table = 0;
	struct file **fds = 0, *file = 0;
	struct inode *inode = 0;
	struct super_block *sb = 0;
	unsigned int most = 0;
	unsigned long magic = 0;
	CORE_READ(files, task->files);
	if (!files)
		return 0;
	CORE_READ(table, files->fdt);
	if (!table)
		return 0;
	CORE_READ(most, table->max_fds);
	CORE_READ(fds, table->fd);
	if (fd >= most || read_kernel(&file, sizeof(file), fds + fd) || !file)
		return 0;
	CORE_READ(inode, file->f_inode);
	if (!inode)
		return 0;
	CORE_READ(sb, inode->i_sb);
	if (!sb)
		return 0;
	CORE_READ(magic, sb->s_magic);
	return magic == TMPFS_MAGIC;
}

INLINE int written(struct raw_args *ctx)
{
	u32 tgid = pid_tgid() >> 32;
	struct target *t = map_lookup(&targets, &tgid);
	s64 ret = ctx->args[1];
	if (!t || ret < 0)
		return 0;
	struct regs r;
	if (read_kernel(&r, sizeof(r), (void *)ctx->args[0]) || r.cs != USER_64)
		return 0;
	u64 nr = r.orig_ax;
	u32 fd = nr == SYS_splice || nr == SYS_copy_file_range ? r.dx : r.di;
	s64 bytes = nr == SYS_fallocate ? (s64)r.r10 : ret;
	if (bytes <= 0 || !in_memory(fd))
		return 0;
	struct record *rec = scratch_of();
	if (!rec)
		return 0;
	fill(&rec->event, KIND_WRITE, t);
	rec->event.nr = nr;
	rec->event.args[0] = fd;
	rec->event.ret = bytes;
	name_stack(rec, t, r.ip, r.sp, r.bp);
	emit_record(rec);
	return 0;
}
