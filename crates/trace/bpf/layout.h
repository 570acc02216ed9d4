/* What travels between the programs and userland. src/events.rs and src/probe.rs hold the same
 * layouts; a test compares sizes. */
#pragma once
#include "kernel.h"

enum kind {
	KIND_EXIT_SYSCALL = 1,
	KIND_ENTER_SYSCALL = 2,
	KIND_FORK = 3,
	KIND_EXEC = 4,
	KIND_EXIT = 5,
	KIND_FAULT = 6,
	KIND_ALLOC = 7,
	KIND_STOPPED = 8,
	KIND_WRITE = 9,
	KIND_FREE = 10,
};

enum {
	STACK_PIECE = 2048,
	STACK_PIECES = 16,
	STACK_MAX = STACK_PIECE * STACK_PIECES,
	FINE_PIECE = 256,
	STACK_UNREAD = 10, /* unreadable pieces in a row: the stack ends here */
	WALK_MAX = 128,
	RETURNS_MAX = 8,
	PYTHON_MAX = 96,
};

/* One thing that happened. `stack` names the stack by the hash of its return addresses; where
 * WITH_STACK is set the record goes on with `struct stack`. */
struct event {
	u32 kind;
	u32 nr;
	u32 tgid;
	u32 tid;
	u64 time_ns;
	u64 args[6];
	s64 ret;
	u64 stack;
	u32 space;
	u32 flags;
};
enum { WITH_STACK = 1, HASHED = 2, HAS_STACK = 4 };

/* Of a goroutine's frame, only `code`: its return address. */
struct python_frame {
	u64 code;
	u64 instr;
	u64 owner;
};

/* A return address that a probe at a function's return has replaced on the stack. */
struct hijacked {
	u64 at; /* where on the stack */
	u64 to; /* what stood there */
};

struct stack {
	u64 ip, sp, bp;
	u64 python_hash;
	u32 python_frames;
	u32 bytes;
	u32 unread; /* used while copying */
	u32 hijacked;
	struct hijacked returns[RETURNS_MAX];
	struct python_frame python[PYTHON_MAX];
};

struct record {
	struct event event;
	struct stack stack;
	u8 bytes[STACK_MAX];
};

struct target {
	u32 space;
	u32 flags;
};
enum { TARGET_PYTHON = 1, TARGET_NO_CHILDREN = 2, TARGET_GO = 4 };

struct span {
	u64 start, end;
};
enum { GUARDS = 4 };

struct config {
	u32 counting;      /* pair maps and unmaps in the kernel, emit nothing */
	u32 mprotect;      /* report mprotect too */
	u32 fault_shift;   /* sample one page fault in 2^shift; 0: none */
	u32 pad;
	struct span guard[GUARDS]; /* text that carries probes; empty where none does */
};

struct rule_key {
	u32 space;
	u32 pad;
	u64 pc;
};
/* How to step from a frame to its caller, as userland saw it done once. */
struct rule {
	s32 cfa;  /* canonical frame address minus sp, or minus bp */
	s32 bp;   /* where the caller's bp is saved, minus the CFA; 0: not saved */
	u32 flags;
};
enum { RULE_END = 1, RULE_BP = 2 };

struct python_layout {
	u64 interpreters;  /* address of the pointer to the first interpreter */
	u32 interp_threads;
	u32 interp_next;
	u32 thread_next;
	u32 thread_id;
	u32 thread_frame;  /* where the thread's innermost frame, or its cframe, is */
	u32 cframe_frame;  /* offset in a cframe, or NONE where there is no cframe */
	u32 frame_back;
	u32 frame_code;
	u32 frame_instr;
	u32 frame_owner;
};
enum { NONE = 0xffffffff };

struct live_key {
	u32 tgid;
	u32 pad;
	u64 start;
};
struct live {
	u64 bytes;
	u64 stack;
	u64 time_ns;
};
