/* One layer's plan and merge in float32 on one core: what energy.py, methods/pitome.py, methods/tome.py and
   plan.py compute by many short operators, which is what merging costs at batch 1. `native.py` compiles and
   calls it. Functions return 0, or 1 where they could not do it (no memory, an index that does not exist). Arrays are contiguous, but where strides are given; B samples, N tokens, p of them protected. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#else
#define LANES 8
#define ROWS 4
#endif
#define PANEL (2 * LANES) /* columns of a tile: two vectors, so that additions of one do not wait for each other */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vec all(float x) { return x - (vec){0}; }
static inline vec pick(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* exp(x) for x up to 88, to 1 or 2 units in the last place. */
static inline vec exponential(vec x) {
    x = pick(x < -87.0f, all(-87.0f), x);
    const vec magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    vec whole = (x * 1.44269504f + magic) - magic;
    vec r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    vec y = 1.9875691500e-4f * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    ivec power = (__builtin_convertvector(whole, ivec) + 127) << 23;
    return y * (vec)power;
}

static float total(vec x) {
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) x[i] += x[i + step];
    return x[0];
}

/* A number's place in ascending order, as an integer; NaN is the largest, as in torch. */
static int32_t order_key(float x) {
    if (x != x) return INT32_MAX;
    int32_t bits;
    x += 0.0f; /* -0 to 0 */
    memcpy(&bits, &x, 4);
    return bits < 0 ? INT32_MIN - bits : bits;
}

/* place[i]: the rank of scores[i] in descending order, of equal ones the first first. */
static void ranks(const float *scores, int64_t n, int32_t *keys, int32_t *place) {
    for (int64_t i = 0; i < n; i++) keys[i] = order_key(scores[i]);
    for (int64_t i = 0; i < n; i++) {
        int32_t key = keys[i], before = 0;
        for (int64_t j = 0; j < i; j++) before += keys[j] >= key;
        for (int64_t j = i + 1; j < n; j++) before += keys[j] > key;
        place[i] = before;
    }
}

static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* Rows `first`, `first + step`, .. of metric [N, D] as unit vectors: rows [n, D], padded by rows of 0. */
static void unit_rows(const float *metric, int64_t d, int64_t first, int64_t step, int64_t n, float *rows) {
    for (int64_t i = 0; i < n; i++) {
        const float *x = metric + (first + i * step) * d;
        vec sum = {0};
        int64_t k = 0;
        for (; k + LANES <= d; k += LANES) sum += *(const vec *)(x + k) * *(const vec *)(x + k);
        float square = total(sum);
        for (; k < d; k++) square += x[k] * x[k];
        float length = sqrtf(square);
        length = length < 1e-12f ? 1e-12f : length;
        for (k = 0; k < d; k++) rows[i * d + k] = x[k] / length;
    }
    memset(rows + n * d, 0, (up(n, ROWS) - n) * d * sizeof(float));
}

/* rows [n, D] -> panels of PANEL columns each, [D, PANEL], padded by columns of 0. */
static void panels(const float *rows, int64_t n, int64_t d, float *out) {
    for (int64_t j = 0; j < up(n, PANEL); j += PANEL)
        for (int64_t k = 0; k < d; k++)
            for (int64_t c = 0; c < PANEL; c++) *out++ = j + c < n ? rows[(j + c) * d + k] : 0;
}

/* The products of ROWS rows with the columns of a panel. */
static inline void tile(const float *rows, const float *panel, int64_t d, vec out[ROWS][2]) {
    vec sum[ROWS][2] = {{{0}}};
    for (int64_t k = 0; k < d; k++) {
        vec left = *(const vec *)(panel + k * PANEL), right = *(const vec *)(panel + k * PANEL + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            sum[r][0] += rows[r * d + k] * left;
            sum[r][1] += rows[r * d + k] * right;
        }
    }
    memcpy(out, sum, sizeof sum);
}

enum { PAPER, ELU, GAUSSIAN };

static inline vec score(vec c, int kind, float margin, float factor) {
    vec m = all(margin);
    if (kind == GAUSSIAN) return exponential((c - 1) * (c - 1) * factor);
    vec above = kind == PAPER ? pick(c >= m, c, all(0)) : pick(c < m, m, c);
    return above + factor * exponential(pick(c > m, m, c));
}

/* The sum over each row of the scores of all cosines, those with padding, which are 0 and add the same to every
   sum, as well. Equal rows have equal sums, to the last bit. */
static inline void energies(const float *rows, const float *cols, int64_t n, int64_t d, int kind, float margin,
                            float factor, float *out) {
    for (int64_t i = 0; i < n; i += ROWS) {
        vec sum[ROWS] = {{0}};
        for (int64_t j = 0; j < n; j += PANEL) {
            vec c[ROWS][2];
            tile(rows + i * d, cols + j * d, d, c);
            for (int half = 0; half < 2; half++)
                for (int r = 0; r < ROWS; r++) sum[r] += score(c[r][half], kind, margin, factor);
        }
        for (int r = 0; r < ROWS && i + r < n; r++) out[i + r] = total(sum[r]);
    }
}

/* The largest product of each row with a column, and the first column that has it. */
static void best_match(const float *rows, int64_t n, const float *cols, int64_t m, int64_t d, float *best,
                       int32_t *index) {
    for (int64_t i = 0; i < n; i += ROWS) {
        for (int r = 0; r < ROWS && i + r < n; r++) best[i + r] = -INFINITY, index[i + r] = 0;
        for (int64_t j = 0; j < m; j += PANEL) {
            vec c[ROWS][2];
            tile(rows + i * d, cols + j * d, d, c);
            for (int r = 0; r < ROWS && i + r < n; r++) {
                float highest = best[i + r];
                for (int64_t lane = 0; lane < PANEL && j + lane < m; lane++) {
                    float x = c[r][lane / LANES][lane % LANES];
                    if (x <= highest || highest != highest) continue; /* NaN counts as the largest */
                    highest = x, index[i + r] = (int32_t)(j + lane);
                }
                best[i + r] = highest;
            }
        }
    }
}

/* keys [B, H, N, D] with strides of B, H and N -> their mean over heads, [B, N, D]. */
void mean_of_heads(const float *keys, int64_t by_batch, int64_t by_head, int64_t by_token, int64_t batch,
                   int64_t heads, int64_t n, int64_t d, float *out) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < n; i++, out += d) {
            const float *x = keys + b * by_batch + i * by_token;
            memcpy(out, x, d * sizeof(float));
            for (int64_t h = 1; h < heads; h++)
                for (int64_t k = 0; k < d; k++) out[k] += x[h * by_head + k];
            for (int64_t k = 0; k < d; k++) out[k] /= (float)heads;
        }
}

/* `energy_plan` with split alternate: metric [B, N, D] -> kept [B, N - remove], source and target [B, remove];
   remove: at most half of the tokens that may merge. */
int pitome_plan(const float *metric, int64_t batch, int64_t n, int64_t d, int64_t p, int64_t remove,
                int64_t protects, int64_t kind, float margin, float factor, int64_t *kept, int64_t *source,
                int64_t *target) {
    int64_t t = n - p, count = protects ? 2 * remove : t, a = (count + 1) / 2, b = count / 2;
    int64_t size = up(t, ROWS) * d + up(t, PANEL) * d;
    float *rows = malloc((size + up(a, ROWS) * d + 2 * t) * sizeof(float) + 5 * t * sizeof(int32_t));
    if (!rows) return 1;
    float *cols = rows + up(t, ROWS) * d, *some = rows + size, *energy = some + up(a, ROWS) * d;
    float *best = energy + t;
    int32_t *keys = (int32_t *)(best + t), *place = keys + t, *order = place + t, *index = order + t;
    int32_t *by_similarity = index + t;
    for (int64_t s = 0; s < batch; s++, metric += n * d, kept += n - remove, source += remove, target += remove) {
        unit_rows(metric, d, p, 1, t, rows);
        panels(rows, t, d, cols);
        if (kind == PAPER) energies(rows, cols, t, d, PAPER, margin, factor, energy);
        else if (kind == ELU) energies(rows, cols, t, d, ELU, margin, factor, energy);
        else energies(rows, cols, t, d, GAUSSIAN, margin, factor, energy);
        ranks(energy, t, keys, place);
        for (int64_t i = 0; i < t; i++) order[place[i]] = (int32_t)i;
        for (int64_t i = 0; i < b; i++) /* some: the rows of set B, then those of set A */
            memcpy(some + i * d, rows + order[2 * i + 1] * d, d * sizeof(float));
        panels(some, b, d, cols);
        memset(some, 0, up(a, ROWS) * d * sizeof(float));
        for (int64_t i = 0; i < a; i++) memcpy(some + i * d, rows + order[2 * i] * d, d * sizeof(float));
        best_match(some, a, cols, b, d, best, index);
        int64_t *row = kept;
        for (int64_t i = 0; i < p; i++) *row++ = i;
        for (int64_t i = count; i < t; i++) *row++ = order[i] + p;
        for (int64_t i = 0; i < a; i++) by_similarity[i] = (int32_t)i;
        if (!protects) {
            ranks(best, a, keys, place);
            for (int64_t i = 0; i < a; i++) by_similarity[place[i]] = (int32_t)i;
        }
        for (int64_t i = remove; i < a; i++) *row++ = order[2 * by_similarity[i]] + p;
        int64_t first = row - kept;
        for (int64_t i = 0; i < b; i++) *row++ = order[2 * i + 1] + p;
        for (int64_t i = 0; i < remove; i++) {
            source[i] = order[2 * by_similarity[i]] + p;
            target[i] = first + index[by_similarity[i]];
        }
    }
    free(rows);
    return 0;
}

/* `bipartite_plan`: likewise. */
int tome_plan(const float *metric, int64_t batch, int64_t n, int64_t d, int64_t p, int64_t remove,
              int64_t *kept, int64_t *source, int64_t *target) {
    int64_t first_a = 2 * ((p + 1) / 2), first_b = 1 + 2 * (p / 2);
    int64_t a = (n - first_a + 1) / 2, b = (n - first_b + 1) / 2;
    int64_t size = (up(a, ROWS) + up(b, ROWS) + up(b, PANEL)) * d;
    float *rows = malloc((size + a) * sizeof(float) + 4 * a * sizeof(int32_t));
    if (!rows) return 1;
    float *others = rows + up(a, ROWS) * d, *cols = others + up(b, ROWS) * d, *best = rows + size;
    int32_t *keys = (int32_t *)(best + a), *place = keys + a, *index = place + a, *order = index + a;
    for (int64_t s = 0; s < batch; s++, metric += n * d, kept += n - remove, source += remove, target += remove) {
        unit_rows(metric, d, first_a, 2, a, rows);
        unit_rows(metric, d, first_b, 2, b, others);
        panels(others, b, d, cols);
        best_match(rows, a, cols, b, d, best, index);
        ranks(best, a, keys, place);
        for (int64_t i = 0; i < a; i++) order[place[i]] = (int32_t)i;
        int64_t *row = kept;
        for (int64_t i = 0; i < p; i++) *row++ = i;
        if (p) { /* the rest of A by position, else by similarity */
            for (int64_t i = 0; i < a; i++) if (place[i] >= remove) *row++ = first_a + 2 * i;
        } else {
            for (int64_t i = remove; i < a; i++) *row++ = first_a + 2 * order[i];
        }
        int64_t first = row - kept;
        for (int64_t i = 0; i < b; i++) *row++ = first_b + 2 * i;
        for (int64_t i = 0; i < remove; i++) {
            source[i] = first_a + 2 * order[i];
            target[i] = first + index[order[i]];
        }
    }
    free(rows);
    return 0;
}

/* Apart, and never inlined: torch rounds the product before it adds. */
static __attribute__((noinline)) void add(float *out, const float *step, int64_t channels) {
    for (int64_t c = 0; c < channels; c++) out[c] += step[c];
}

/* Totals of groups: out [M] from one number per token. */
static void totals(const float *x, const int64_t *kept, int64_t m, const int64_t *source, const int64_t *target,
                   int64_t k, float *out) {
    for (int64_t i = 0; i < m; i++) out[i] = x ? x[kept[i]] : 1;
    for (int64_t i = 0; i < k; i++)
        if (target[i] >= 0) out[target[i]] += x ? x[source[i]] : 1;
}

/* `Plan.carry_out`: x [B, N, C] and size [B, N] -> out [B, M, C] and sizes [B, M], bit for bit; the indices have
   strides of B. weight [B, N] and scale [B, M] may be NULL. */
int carry_out(const float *x, const float *size, const float *weight, const float *scale, int64_t batch,
              int64_t n, int64_t channels, int64_t m, const int64_t *kept, int64_t next_kept,
              const int64_t *source, int64_t next_source, const int64_t *target, int64_t next_target, float *out,
              float *sizes) {
    float *weights = malloc((m + channels) * sizeof(float)), *step = weights + m;
    int64_t k = n - m, wrong = !weights;
    for (int64_t b = 0; b < batch && !wrong; b++) {
        for (int64_t i = 0; i < m; i++) wrong |= kept[i] < 0 || kept[i] >= n;
        for (int64_t i = 0; i < k; i++)
            wrong |= source[i] < 0 || source[i] >= n || target[i] < -1 || target[i] >= m;
        if (wrong) break;
        totals(size, kept, m, source, target, k, sizes);
        totals(weight, kept, m, source, target, k, weights);
        for (int64_t i = 0; i < m; i++)
            memcpy(out + i * channels, x + kept[i] * channels, channels * sizeof(float));
        for (int64_t i = 0; i < k; i++) {
            if (target[i] < 0) continue;
            float group = weights[target[i]], share = (weight ? weight[source[i]] : 1) / (group == 0 ? 1 : group);
            const float *from = x + source[i] * channels, *to = x + kept[target[i]] * channels;
            for (int64_t c = 0; c < channels; c++) step[c] = (from[c] - to[c]) * share;
            add(out + target[i] * channels, step, channels);
        }
        for (int64_t i = 0; scale && i < m; i++)
            for (int64_t c = 0; c < channels; c++) out[i * channels + c] *= scale[i];
        x += n * channels, size += n, out += m * channels, sizes += m;
        weight = weight ? weight + n : weight, scale = scale ? scale + m : scale;
        kept += next_kept, source += next_source, target += next_target;
    }
    free(weights);
    return (int)wrong;
}

/* log(size), of sizes below 1 that of 1. */
void log_sizes(const float *size, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = size[i] > 1 ? logf(size[i]) : size[i] == size[i] ? 0 : size[i];
}
