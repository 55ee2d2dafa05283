/*
 * Times the operations of rsplib's handlespace library as Debian ships it (librsphsmgt
 * of the package librsplib3; it comes without headers, so what is called is declared
 * here, with room to spare where the library wants memory of its caller):
 *
 *	rsplib POLICY POOLS ELEMENTS RUNS
 *
 * with POLICY rr, lu or wrand, and ELEMENTS in each pool. It prints a line for each
 * operation: name, and nanoseconds of CPU time for one, the median of the runs; and one
 * with the octets of memory for each element. Elements have random identifiers, one IPv4
 * address, and a timer that is set at each registration; they are registered again and
 * removed in random order.
 */
#include <malloc.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TREE(name) poolHandlespaceManagement##name##_SimpleRedBlackTree
void TREE(New)(void *space, uint32_t registrar, void *, void *, void *);
void TREE(Delete)(void *space);
unsigned TREE(RegisterPoolElement)(void *space, const void *handle, uint32_t home, uint32_t element, unsigned life,
	const void *policy, const void *user, const void *registrator, int socket, uint32_t association,
	unsigned long long now, void **node);
unsigned TREE(DeregisterPoolElement)(void *space, const void *handle, uint32_t element);
unsigned TREE(HandleResolution)(void *space, const void *handle, void **nodes, size_t *count, size_t items, size_t increment);
void TREE(RestartPoolElementExpiryTimer)(void *space, void *node, unsigned long long life);
size_t TREE(PurgeExpiredPoolElements)(void *space, unsigned long long now);
size_t TREE(GetPoolElements)(const void *space);
void poolHandleNew(void *handle, const unsigned char *octets, size_t size);
void poolPolicySettingsNew(void *policy);
void transportAddressBlockNew(void *block, int protocol, uint16_t port, uint16_t flags, const void *addresses,
	size_t count, size_t at_most);

#define LIFE 300000000ULL /* of a registration, microseconds */
#define CHOICES 500000

enum { REGISTER, AGAIN, DEREGISTER, EXPIRE, CHOOSE1, CHOOSE3, MEMORY, RESULTS };
static const char *names[] = {"register", "re-register", "deregister", "expire", "choose 1", "choose 3", "memory"};

union handle {
	unsigned char octets[256];
	uint64_t align;
};
struct element {
	uint32_t id, pool;
};

static uint64_t seed = 88172645463325252ULL;
static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed >> 32;
}

static double cpu(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void check(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "rsplib: %s failed\n", what);
		exit(1);
	}
}

static union handle *handles;
static struct element *elements;
static size_t pools, count;
static unsigned type; /* of the policy */
static unsigned long long now;
static _Alignas(64) unsigned char space[1 << 16], user[512], registrator[512];

static void shuffle(void)
{
	for (size_t i = count - 1; i > 0; i--) {
		size_t k = rnd() % (i + 1);
		struct element e = elements[i];
		elements[i] = elements[k];
		elements[k] = e;
	}
}

static double registers(void)
{
	unsigned policy[16];
	double begin = cpu();
	for (size_t i = 0; i < count; i++) {
		void *node;
		poolPolicySettingsNew(policy);
		policy[0] = type;
		policy[1] = 1 + rnd() % 100; /* weight */
		policy[2] = rnd();           /* load */
		now++;
		check(TREE(RegisterPoolElement)(space, &handles[elements[i].pool], 1, elements[i].id, LIFE / 1000, policy, user,
			registrator, 1, 1, now, &node) == 0, "registration");
		TREE(RestartPoolElementExpiryTimer)(space, node, LIFE);
	}
	return (cpu() - begin) / count;
}

static double chooses(size_t items)
{
	void *nodes[16];
	size_t want = count / pools < items ? count / pools : items;
	double begin = cpu();
	for (int i = 0; i < CHOICES; i++) {
		size_t n = items;
		check(TREE(HandleResolution)(space, &handles[rnd() % pools], nodes, &n, items, 0) == 0 && n == want, "choice");
	}
	return (cpu() - begin) / CHOICES;
}

static double inUse(void) { return mallinfo2().uordblks + mallinfo2().hblkhd; }

static void once(double *result)
{
	double empty = inUse();
	TREE(New)(space, 1, NULL, NULL, NULL);
	shuffle();
	result[REGISTER] = registers();
	result[MEMORY] = (inUse() - empty) / count;
	check(TREE(GetPoolElements)(space) == count, "counting");
	shuffle();
	result[AGAIN] = registers();
	result[CHOOSE1] = chooses(1);
	result[CHOOSE3] = chooses(3);
	shuffle();
	double begin = cpu();
	for (size_t i = 0; i < count; i++)
		check(TREE(DeregisterPoolElement)(space, &handles[elements[i].pool], elements[i].id) == 0, "deregistration");
	result[DEREGISTER] = (cpu() - begin) / count;
	shuffle();
	registers();
	begin = cpu();
	check(TREE(PurgeExpiredPoolElements)(space, now + 2 * LIFE) == count, "expiry");
	result[EXPIRE] = (cpu() - begin) / count;
	TREE(Delete)(space);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	check(argc == 5, "usage: rsplib rr|lu|wrand POOLS ELEMENTS RUNS; this");
	type = strcmp(argv[1], "lu") == 0 ? 0x40000001 : strcmp(argv[1], "wrand") == 0 ? 4 : 1;
	pools = strtoul(argv[2], NULL, 10);
	size_t each = strtoul(argv[3], NULL, 10), runs = strtoul(argv[4], NULL, 10);
	count = pools * each;
	handles = calloc(pools, sizeof *handles);
	elements = calloc(count, sizeof *elements);
	double *results = calloc(runs * RESULTS, sizeof *results), *all = calloc(runs, sizeof *all);
	check(pools && each && runs && handles && elements && results && all, "memory");
	for (size_t i = 0; i < pools; i++) {
		char name[32];
		poolHandleNew(&handles[i], (unsigned char *)name, snprintf(name, sizeof name, "pool-%zu", i));
	}
	for (size_t i = 0; i < count; i++)
		/* Different, though they look random: an odd factor permutes 32 bits. */
		elements[i] = (struct element){(uint32_t)(i + 1) * 2654435761u, i % pools};
	struct {
		struct sockaddr_in in;
		char room[112];
	} address = {.in = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(0x0a000001)}};
	transportAddressBlockNew(user, IPPROTO_TCP, 7, 0, &address, 1, 1);
	transportAddressBlockNew(registrator, IPPROTO_SCTP, 7, 0, &address, 1, 1);
	for (size_t r = 0; r < runs; r++)
		once(results + r * RESULTS);
	for (int k = 0; k < RESULTS; k++) {
		for (size_t r = 0; r < runs; r++)
			all[r] = results[r * RESULTS + k];
		qsort(all, runs, sizeof *all, ascending);
		printf("%s\t%.0f\n", names[k], all[runs / 2]);
	}
	return 0;
}
