//go:build ignore

// gather.c scores lists of random rows of a bf16 key store in C, as a measure
// for kernel.ScoreList: the same keys, queries and lists as main.go makes from
// the same seeds, the same loop over lists, timed in the same process that
// runs it. main.go builds it with `gcc -O3 -march=native` and drives it:
//
//	gather DIM QUERIES HEADS KEYS LISTS LENGTH HUGE
//
// For every line on standard input it scores all lists once and answers with
// a line. The line "scores" is answered with the scores of the first list as
// hexadecimal floats; a number is the rows to ask for ahead of their use
// (LENGTH and more: the whole list at once), answered with nanoseconds per key.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

// A step of the generator splitmix64.
static uint64_t mix(uint64_t *state) {
	uint64_t z = *state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

// A bf16 with random sign and mantissa and a magnitude from 1/4 to 4.
static uint16_t element(uint64_t *state) {
	uint64_t x = mix(state);
	return (x & 0x807f) | (125 + (x >> 32 & 3)) << 7;
}

static float widened(uint16_t x) {
	uint32_t bits = (uint32_t)x << 16;
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

// Vectors of 32 bf16 and of 16 f32: gcc splits them to the machine's width.
typedef uint32_t words __attribute__((vector_size(64), aligned(4)));
typedef float floats __attribute__((vector_size(64), aligned(4)));

// across sums the elements of a vector.
static inline float across(floats s) {
	s += __builtin_shuffle(s, (words){8, 9, 10, 11, 12, 13, 14, 15});
	s += __builtin_shuffle(s, (words){4, 5, 6, 7});
	s += __builtin_shuffle(s, (words){2, 3});
	return s[0] + s[1];
}

// score writes out[j*n+i] = q[j] . row ids[i] for nq queries. Two elements
// stand in each word: the even one is its lower half, moved up, the odd one
// its upper half. q holds, for each 32 elements, the even and then the odd
// ones of each query. The dimension is a multiple of 32.
static inline __attribute__((always_inline)) void score(int nq, const float *q, const uint16_t *rows,
		const uint32_t *ids, int n, int dim, int ahead, float *out) {
	int asked = 0;
	for (int i = 0; i < n; i++) {
		for (; asked < n && asked <= i + ahead; asked++)
			for (int line = 0; line < dim; line += 32)
				__builtin_prefetch(rows + (size_t)ids[asked] * dim + line);
		const uint16_t *row = rows + (size_t)ids[i] * dim;
		floats sum[8] = {};
		for (int k = 0; k < dim; k += 32) {
			words pair = *(const words *)(row + k);
			floats even = (floats)(pair << 16), odd = (floats)(pair & 0xffff0000);
			for (int j = 0; j < nq; j++) {
				const float *p = q + (size_t)k * nq + 32 * j;
				sum[2 * j] += even * *(const floats *)p;
				sum[2 * j + 1] += odd * *(const floats *)(p + 16);
			}
		}
		for (int j = 0; j < nq; j++)
			out[j * n + i] = across(sum[2 * j] + sum[2 * j + 1]);
	}
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
	if (argc != 8) {
		fprintf(stderr, "usage: gather DIM QUERIES HEADS KEYS LISTS LENGTH HUGE\n");
		return 2;
	}
	size_t dim = atoi(argv[1]), nq = atoi(argv[2]), heads = atoi(argv[3]), keys = atoi(argv[4]);
	size_t lists = atoi(argv[5]), length = atoi(argv[6]), huge = atoi(argv[7]);
	if (nq != 1 && nq != 4) {
		fprintf(stderr, "gather: 1 or 4 queries\n");
		return 2;
	}

	// Whole huge pages, as main.go maps them.
	size_t page = 2 << 20, bytes = (heads * keys * dim * 2 + page - 1) / page * page;
	char *map = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	uint16_t *store = (uint16_t *)(((uintptr_t)map + page - 1) / page * page);
	madvise(store, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

	uint64_t state = 1;
	for (size_t i = 0; i < heads * keys * dim; i++)
		store[i] = element(&state);
	float *q = aligned_alloc(64, nq * dim * sizeof *q);
	for (size_t j = 0; j < nq; j++)
		for (size_t k = 0; k < dim; k++)
			q[k / 32 * 32 * nq + 32 * j + k % 2 * 16 + k % 32 / 2] = widened(element(&state)) / 3;
	uint32_t *ids = malloc(lists * length * sizeof *ids);
	for (size_t i = 0; i < lists * length; i++)
		ids[i] = mix(&state) % keys;

	float *out = calloc(nq * length, sizeof *out);
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		int all = !strcmp(line, "scores\n"), ahead = all ? (int)length : atoi(line);
		double start = now();
		for (size_t i = 0; i < (all ? 1 : lists); i++) {
			const uint16_t *head = store + i % heads * keys * dim;
			if (nq == 1)
				score(1, q, head, ids + i * length, length, dim, ahead, out);
			else
				score(4, q, head, ids + i * length, length, dim, ahead, out);
			__asm__ volatile("" ::: "memory"); // the scores are wanted
		}
		if (!all)
			printf("%.4f", (now() - start) / (lists * length));
		for (size_t i = 0; all && i < nq * length; i++)
			printf("%a ", out[i]);
		printf("\n");
		fflush(stdout);
	}
	return 0;
}
