/*
 * A library to preload into the User Mode Linux kernel on processors whose
 * register state is larger than the kernel's buffer for it (those with AMX).
 *
 * The kernel reads and writes its processes' state with PTRACE_GETREGSET and
 * PTRACE_SETREGSET and a buffer of some 2.7 KB. Reading gives the beginning of
 * the state; writing a part is refused with EFAULT, and the guest dies at once.
 * Here a part is completed by the rest of the present state, which guest
 * processes never use.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	static char state[1 << 16]; /* the kernel makes these calls from one thread */
	struct iovec whole = { state, sizeof(state) };
	struct iovec *part;
	void *pid, *address, *data;
	va_list arguments;

	if (!next)
		next = dlsym(RTLD_NEXT, "ptrace");
	va_start(arguments, request);
	pid = va_arg(arguments, void *);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);

	part = data;
	if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
		return next(request, pid, address, data);
	if (next(PTRACE_GETREGSET, pid, address, &whole) != 0 || part->iov_len >= whole.iov_len)
		return next(request, pid, address, data);
	memcpy(state, part->iov_base, part->iov_len);
	return next(request, pid, address, &whole);
}
