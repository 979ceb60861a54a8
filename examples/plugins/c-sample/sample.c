/* Score a sample of the keys, then all keys around the best of the sample:
 * neighbours in the sequence are often alike. A search strategy in one file. */
#include "ra.h"

RA_PLUGIN("{\"name\":\"c-sample\",\"version\":\"1.0.0\",\"kind\":\"search\",\"features\":[],"
          "\"doc\":\"scores every stride-th key, then the keys around the best of them\",\"parameters\":["
          "{\"name\":\"stride\",\"type\":\"int\",\"min\":1,\"max\":1024,\"default\":8,\"doc\":\"every how many keys one is sampled\"},"
          "{\"name\":\"best\",\"type\":\"int\",\"min\":1,\"max\":4096,\"default\":64,\"doc\":\"sampled keys whose neighbours are scored\"}]}")

static uint32_t stride, best;

int32_t on_configure(uint32_t params_len) {
    (void)params_len;
    stride = (uint32_t)ra_param_int("stride");
    best = (uint32_t)ra_param_int("best");
    return 0;
}

/* Nothing is built: the keys are all there is. */
int32_t on_build(uint32_t layer, uint32_t kv_head) { (void)layer, (void)kv_head; return 0; }
int32_t on_append(uint32_t layer, uint32_t kv_head, uint32_t lo, uint32_t hi) { (void)layer, (void)kv_head, (void)lo, (void)hi; return 0; }

/* sift moves entry i of a heap of n, worst score first, to its place. */
static void sift(uint32_t *ids, float *scores, uint32_t i, uint32_t n) {
    for (uint32_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && scores[c + 1] < scores[c]) c++;
        if (!(scores[c] < scores[i])) return;
        uint32_t id = ids[i]; ids[i] = ids[c]; ids[c] = id;
        float s = scores[i]; scores[i] = scores[c]; scores[c] = s;
    }
}

/* keep_best leaves the k best of n at the front and returns how many. */
static uint32_t keep_best(uint32_t *ids, float *scores, uint32_t n, uint32_t k) {
    if (k >= n) return n;
    for (uint32_t i = k / 2; i-- > 0;) sift(ids, scores, i, k);
    for (uint32_t i = k; i < n; i++) {
        if (!(scores[i] > scores[0])) continue;
        ids[0] = ids[i], scores[0] = scores[i];
        sift(ids, scores, 0, k);
    }
    return k;
}

/* score_all scores n keys for one query, in pieces that the host takes. */
static void score_all(uint32_t query, const uint32_t *ids, uint32_t n, float *scores) {
    for (uint32_t at = 0; at < n; at += RA_MAX_ROWS)
        ra_score(query, 1, ids + at, n - at < RA_MAX_ROWS ? n - at : RA_MAX_ROWS, scores + at);
}

int32_t on_search(uint32_t layer) {
    (void)layer;
    struct ra_call call = ra_call_info();
    uint32_t k = call.words[RA_QUERIES_TOP_K];
    RA_BATCHES(call, b, 1u) {
        ra_reset();
        uint32_t store[RA_STORE_WORDS];
        ra_store_info(b.sequence, b.kv_head, store, sizeof store);
        uint32_t n = store[RA_STORE_INDEXED], nr = store[RA_STORE_RANGES];
        uint32_t *ranges = ra_take(8 * nr), *all = ra_take(4 * n), *ids = ra_take(4 * n);
        float *scores = ra_take(4 * n);
        uint8_t *chosen = ra_take(n);
        if (!ranges || !all || !ids || !scores || !chosen) {
            static const char text[] = "no memory for the lists; raise limits.memory_mib";
            ra_fail(text, sizeof text - 1);
            return 1;
        }
        ra_indexed_ranges(b.sequence, b.kv_head, ranges, 8 * nr);
        uint32_t at = 0;
        for (uint32_t r = 0; r < nr; r++)
            for (uint32_t id = ranges[2 * r]; id < ranges[2 * r + 1]; id++) all[at++] = id;
        uint32_t query = ra_batch_query(&call, &b, 0), m = 0;

        /* The sample: ids holds places in all, for the neighbours' sake. */
        for (uint32_t i = 0; i < n; i += stride) ids[m++] = all[i];
        score_all(query, ids, m, scores);
        for (uint32_t i = 0; i < m; i++) ids[i] = i * stride;
        m = keep_best(ids, scores, m, best);

        /* Around the best. */
        __builtin_memset(chosen, 0, n);
        for (uint32_t i = 0; i < m; i++)
            for (uint32_t p = ids[i] < stride ? 0 : ids[i] - stride; p < n && p <= ids[i] + stride; p++) chosen[p] = 1;
        m = 0;
        for (uint32_t p = 0; p < n; p++)
            if (chosen[p]) ids[m++] = all[p];
        score_all(query, ids, m, scores);
        m = keep_best(ids, scores, m, k);
        ra_emit(query, ids, 0, m);
    }
    return 0;
}
