/* A placement policy in one file: the first tokens and a window stay static,
 * tokens up to a horizon behind the window are indexed, older ones dropped. */
#include "ra.h"

RA_PLUGIN("{\"name\":\"c-policy\",\"version\":\"1.0.0\",\"kind\":\"policy\",\"features\":[],"
          "\"doc\":\"static sink and window, an indexed stretch behind the window, the rest dropped\",\"parameters\":["
          "{\"name\":\"sink\",\"type\":\"int\",\"min\":0,\"max\":1048576,\"default\":128,\"doc\":\"first tokens that stay static\"},"
          "{\"name\":\"window\",\"type\":\"int\",\"min\":1,\"max\":1048576,\"default\":512,\"doc\":\"last tokens that stay static\"},"
          "{\"name\":\"horizon\",\"type\":\"int\",\"min\":0,\"max\":1073741824,\"default\":65536,\"doc\":\"tokens before the window that can be found\"}]}")

static int64_t sink, window, horizon;

int32_t on_configure(uint32_t params_len) {
    (void)params_len;
    sink = ra_param_int("sink");
    window = ra_param_int("window");
    horizon = ra_param_int("horizon");
    return 0;
}

/* move gives the tokens of [lo, hi) that are in one state another. */
static int32_t move(uint32_t from, int64_t lo, int64_t hi, uint32_t to) {
    uint32_t n = ra_state_ranges(from, 0, 0) / 8;
    uint32_t *ranges = ra_take(8 * n);
    if (!ranges) return 1;
    ra_state_ranges(from, ranges, 8 * n);
    for (uint32_t i = 0; i < n; i++) {
        int64_t a = ranges[2 * i] > lo ? ranges[2 * i] : lo, b = ranges[2 * i + 1] < hi ? ranges[2 * i + 1] : hi;
        if (a < b) ra_place(to, (uint32_t)a, (uint32_t)b);
    }
    return 0;
}

int32_t on_place(uint32_t layer) {
    (void)layer;
    ra_reset();
    uint32_t info[RA_PLACE_WORDS];
    ra_place_info(info, sizeof info);
    int64_t edge = (int64_t)info[RA_PLACE_TOKENS] - window;
    int64_t old = edge - horizon > sink ? edge - horizon : sink;
    return move(RA_STATE_STATIC, sink, old, RA_STATE_DROPPED) | move(RA_STATE_STATIC, old, edge, RA_STATE_INDEXED) |
           move(RA_STATE_INDEXED, sink, old, RA_STATE_DROPPED);
}
