/* The little of the kernel that the programs need: helpers by number, and the few task fields,
 * relocated at load time against the running kernel's own BTF. No vmlinux.h: it is megabytes. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Verified once, by itself: keeps the verifier's work the sum of the loops, not their product. */
#define GLOBAL __attribute__((noinline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define CORE __attribute__((preserve_access_index))

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LRU_HASH = 9,
	MAP_RINGBUF = 27,
	NO_PREALLOC = 1,
	RB_NO_WAKEUP = 1,
	RB_FORCE_WAKEUP = 2,
	ANY = 0,
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const ktime_ns)(void) = (void *)5;
static u32 (*const this_cpu)(void) = (void *)8;
static u64 (*const pid_tgid)(void) = (void *)14;
static u64 (*const current_task)(void) = (void *)35;
static long (*const send_signal)(u32 sig) = (void *)109;
static long (*const read_user)(void *dst, u32 size, const void *src) = (void *)112;
static long (*const read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static long (*const ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static void *(*const ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static u64 (*const attach_cookie)(void *ctx) = (void *)174;
static void (*const ring_submit)(void *data, u64 flags) = (void *)132;
static u64 (*const ring_query)(void *ring, u64 flags) = (void *)134;

/* x86-64 user registers at kernel entry: ABI (arch/x86/include/uapi/asm/ptrace.h). */
struct regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	u64 orig_ax, ip, cs, flags, sp, ss;
};

struct thread_struct {
	unsigned long fsbase;
} CORE;

struct files_struct;

/* One call whose return is probed. */
struct return_instance {
	unsigned long stack;
	unsigned long orig_ret_vaddr;
	struct return_instance *next;
} CORE;

struct uprobe_task {
	struct return_instance *return_instances;
} CORE;

struct task_struct {
	int pid;
	int tgid;
	struct files_struct *files;
	struct uprobe_task *utask;
	struct thread_struct thread;
} CORE;

/* The code segment of 64-bit user code. */
enum { USER_64 = 0x33 };

struct raw_args {
	u64 args[4];
};

/* Whether the running kernel has a field. */
#define CORE_HAS(field) __builtin_preserve_field_info(field, 2)
#define CORE_READ(dst, field) read_kernel(&(dst), sizeof(dst), __builtin_preserve_access_index(&(field)))
