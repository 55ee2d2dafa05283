/*
 * One member of a closed process group of Corosync, for measurements: takes the flags
 * of 'ringbench member', does what it does, and prints the same JSON. corosync.sh
 * starts the daemon and this.
 *
 *	--daemon PID    adds the daemon's CPU time
 *	--watch         instead: prints time and number of members at each change
 */
#include <corosync/cpg.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Sending gives way to receiving after so many messages. */
#define BURST 64

static int id, members, payload = 100, outstanding, daemon_pid, watch;
static const char *how = "none";
static double rate = 1000, warmup = 0.5, seconds = 5;

static cpg_handle_t cpg;
static uint32_t self;
static int joined; /* members */
static int64_t begin_at = INT64_MAX, end_at = INT64_MAX;
static int64_t sent, full, ordered, on_their_way;

/* Latencies: 1,024 steps for each power of two of nanoseconds. */
#define STEPS 1024
static int64_t counts[54][STEPS], count, longest;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void fail(const char *what, cs_error_t err)
{
	fprintf(stderr, "cpg: %s: error %d\n", what, err);
	exit(1);
}

static void record(int64_t ns)
{
	int power = 0;
	if (ns < 0)
		ns = 0;
	if (ns > longest)
		longest = ns;
	while (ns >> power >= STEPS)
		power++;
	counts[power][ns >> power]++;
	count++;
}

static double quantile(double q)
{
	int64_t rest = (int64_t)(q * count);
	for (int power = 0; power < 54; power++)
		for (int64_t step = 0; step < STEPS; step++)
			if ((rest -= counts[power][step]) < 0)
				return (step << power) / 1e9;
	return longest / 1e9;
}

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t node, uint32_t pid,
	void *message, size_t len)
{
	(void)handle; (void)group; (void)pid;
	int64_t at = now();
	int measured = at >= begin_at && at < end_at;
	ordered += measured;
	if (node != self)
		return;
	on_their_way--;
	int64_t from;
	if (len < sizeof from)
		return;
	memcpy(&from, message, sizeof from);
	if (measured && from >= begin_at)
		record(at - from);
}

static void changed(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *list, size_t n,
	const struct cpg_address *left, size_t nleft, const struct cpg_address *came, size_t ncame)
{
	(void)handle; (void)group; (void)list; (void)left; (void)nleft; (void)came; (void)ncame;
	joined = n;
	if (watch) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		printf("%lld.%09ld %zu\n", (long long)t.tv_sec, t.tv_nsec, n);
		fflush(stdout);
	}
}

/* Delivers what is there; waits for it for ms at most. */
static void receive(int ms)
{
	int fd;
	cs_error_t err = cpg_fd_get(cpg, &fd);
	if (err != CS_OK)
		fail("cpg_fd_get", err);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (poll(&p, 1, ms) > 0 && (err = cpg_dispatch(cpg, CS_DISPATCH_ALL)) != CS_OK && err != CS_ERR_TRY_AGAIN)
		fail("cpg_dispatch", err);
}

/* Hands a message in that counts from at. 0: there is no room. */
static int propose(int64_t at)
{
	static char message[1 << 20];
	struct iovec v = {message, payload};
	if (payload >= (int)sizeof at)
		memcpy(message, &at, sizeof at);
	cs_error_t err = cpg_mcast_joined(cpg, CPG_TYPE_AGREED, &v, 1);
	if (err == CS_ERR_TRY_AGAIN) {
		full++;
		return 0;
	}
	if (err != CS_OK)
		fail("cpg_mcast_joined", err);
	sent++;
	on_their_way++;
	return 1;
}

/* User and system time of this process and of the daemon. */
static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double sum = u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	if (daemon_pid) {
		char name[64], line[1024];
		snprintf(name, sizeof name, "/proc/%d/stat", daemon_pid);
		FILE *f = fopen(name, "r");
		if (f && fgets(line, sizeof line, f)) {
			unsigned long user, system;
			char *p = strrchr(line, ')');
			if (p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
				sum += (user + system) / (double)sysconf(_SC_CLK_TCK);
		}
		if (f)
			fclose(f);
	}
	return sum;
}

static void load(void)
{
	int64_t start = now(), number = 0;
	begin_at = start + (int64_t)(warmup * 1e9);
	end_at = begin_at + (int64_t)(seconds * 1e9);
	double before = 0;
	for (int64_t t; (t = now()) < end_at;) {
		if (!before && t >= begin_at)
			before = cpu();
		int ms = 1;
		if (strcmp(how, "max") == 0) {
			for (int i = 0; i < BURST && (!outstanding || on_their_way < outstanding); i++) {
				if (!propose(now()))
					break;
				ms = 0;
			}
		} else if (strcmp(how, "rate") == 0) {
			int64_t due = start + (int64_t)(number / rate * 1e9);
			for (int i = 0; i < BURST && due <= t && propose(due); i++)
				due = start + (int64_t)(++number / rate * 1e9);
			int64_t wait = due - now();
			if (wait <= 0) {
				ms = 0;
			} else if (wait < 1000000) {
				/* poll's steps are too coarse. */
				receive(0);
				struct timespec nap = {0, wait < 20000 ? wait : 20000};
				nanosleep(&nap, NULL);
				ms = 0;
			}
		} else if (strcmp(how, "one-at-a-time") == 0) {
			if (on_their_way == 0)
				propose(now());
		} else {
			ms = 10;
		}
		receive(ms);
	}
	double used = cpu() - before;
	printf("{\"member\":%d,\"seconds\":%g,\"ordered\":%lld,\"sent\":%lld,\"full\":%lld,\"cpu_seconds\":%g",
		id, seconds, (long long)ordered, (long long)sent, (long long)full, used);
	if (count)
		printf(",\"agreed\":{\"p50\":%.9f,\"p99\":%.9f,\"p999\":%.9f,\"max\":%.9f,\"count\":%lld}",
			quantile(0.5), quantile(0.99), quantile(0.999), longest / 1e9, (long long)count);
	printf("}\n");
	fflush(stdout);
}

/* duration reads 500ms, 1.5s or 2m as Go writes them. */
static double duration(const char *s)
{
	double sum = 0;
	while (*s) {
		char *end;
		double v = strtod(s, &end);
		if (end == s)
			return sum;
		if (strncmp(end, "ms", 2) == 0)
			v /= 1e3, end++;
		else if (strncmp(end, "us", 2) == 0)
			v /= 1e6, end++;
		else if (*end == 'm')
			v *= 60;
		sum += v;
		s = *end ? end + 1 : end;
	}
	return sum;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(flag, "--watch") == 0) {
			watch = 1;
			continue;
		}
		i++;
		if (strcmp(flag, "--id") == 0)
			id = atoi(value);
		else if (strcmp(flag, "--members") == 0)
			members = atoi(value);
		else if (strcmp(flag, "--payload") == 0)
			payload = atoi(value);
		else if (strcmp(flag, "--send") == 0)
			how = value;
		else if (strcmp(flag, "--rate") == 0)
			rate = atof(value);
		else if (strcmp(flag, "--outstanding") == 0)
			outstanding = atoi(value);
		else if (strcmp(flag, "--warmup") == 0)
			warmup = duration(value);
		else if (strcmp(flag, "--seconds") == 0)
			seconds = atof(value);
		else if (strcmp(flag, "--daemon") == 0)
			daemon_pid = atoi(value);
		else if (strcmp(flag, "--listen") != 0 && strcmp(flag, "--peers") != 0) {
			fprintf(stderr, "cpg: unknown flag %s\n", flag);
			return 2;
		}
	}
	if (payload > 1 << 20) {
		fprintf(stderr, "cpg: payload is too long\n");
		return 2;
	}
	cpg_callbacks_t callbacks = {.cpg_deliver_fn = deliver, .cpg_confchg_fn = changed};
	struct cpg_name group = {.length = 9, .value = "ringbench"};
	cs_error_t err = CS_ERR_TRY_AGAIN;
	for (int i = 0; i < 300 && err != CS_OK; i++) { /* the daemon may still be starting */
		err = cpg_initialize(&cpg, &callbacks);
		if (err != CS_OK)
			usleep(100000);
	}
	if (err != CS_OK)
		fail("cpg_initialize", err);
	while ((err = cpg_join(cpg, &group)) == CS_ERR_TRY_AGAIN)
		usleep(10000);
	if (err != CS_OK)
		fail("cpg_join", err);
	if ((err = cpg_local_get(cpg, &self)) != CS_OK)
		fail("cpg_local_get", err);
	while (watch)
		receive(-1);
	while (joined < members)
		receive(100);
	printf("ready\n");
	fflush(stdout);
	/* The others may begin first: what they send is to be received meanwhile. */
	struct pollfd in = {.fd = 0, .events = POLLIN};
	while (poll(&in, 1, 1) == 0)
		receive(0);
	char c;
	while (read(0, &c, 1) == 1 && c != '\n')
		;
	load();
	/* Until the end of the input others may still measure. */
	for (;;) {
		receive(10);
		if (poll(&in, 1, 0) > 0 && read(0, &c, 1) <= 0)
			return 0;
	}
}
