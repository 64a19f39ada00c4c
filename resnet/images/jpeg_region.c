/* The hot loops of region.py: decode a region of a JPEG, and the antialiased bilinear (triangle) resize; both of them for
 * several images, without coming back to Python in between; and a window of Pillow's own resize, bit for bit.
 *
 * Plain C for any compiler with GCC's vector extensions (gcc or clang); nothing depends on the CPU that
 * compiles. Compiled on first use by region.py; with -DREGION it also needs libjpeg-turbo's jpeglib.h and -ljpeg.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float float4 __attribute__((vector_size(16), aligned(4)));

typedef struct { int *first, *count, most; float *weight; } Taps;

/* Weights of the triangle filter along one axis; as wide as the shrinking, so that nothing aliases.
 * The box [start, start + length) of an axis of n pixels goes to `out` pixels; pixels outside the axis weigh nothing. */
static int make_taps(Taps *taps, int n, double start, double length, int out) {
    double step = length / out, reach = step < 1 ? 1 : step;
    int room = (int)ceil(2 * reach) + 2;
    taps->first = malloc(2 * (size_t)out * sizeof(int));
    taps->weight = calloc((size_t)out * room, sizeof(float));
    if (!taps->first || !taps->weight) return -1;
    taps->count = taps->first + out;
    taps->most = 1;
    for (int i = 0; i < out; i++) {
        double centre = start + (i + 0.5) * step, sum = 0;
        int from = (int)floor(centre - reach + 0.5), to = (int)floor(centre + reach + 0.5);
        from = from < 0 ? 0 : from > n - 1 ? n - 1 : from;
        to = to > n ? n : to <= from ? from + 1 : to;
        float *weight = taps->weight + (size_t)i * room;
        for (int j = from; j < to; j++) {
            double w = 1 - fabs((j + 0.5 - centre) / reach);
            weight[j - from] = w > 0 ? (float)w : 0;
            sum += weight[j - from];
        }
        if (sum == 0) sum = weight[0] = 1;
        for (int j = 0; j < to - from; j++) weight[j] = (float)(weight[j] / sum);
        taps->first[i] = from;
        taps->count[i] = to - from;
        if (to - from > taps->most) taps->most = to - from;
    }
    for (int i = 0; i < out; i++) /* close up: `most` weights a pixel, the rest zero */
        memmove(taps->weight + (size_t)i * taps->most, taps->weight + (size_t)i * room, taps->most * sizeof(float));
    return 0;
}

/* One row of the result before the horizontal pass: n sums over `count` rows of the source. */
static inline __attribute__((always_inline)) void blend_rows(
    const uint8_t *source, long stride, int n, const float *weight, int count, float *row) {
    enum { BLOCK = 64 };
    for (int at = 0; at < n; at += BLOCK) {
        if (n < BLOCK) {
            for (int i = 0; i < n; i++) row[i] = 0;
            for (int t = 0; t < count; t++)
                for (int i = 0; i < n; i++) row[i] += weight[t] * source[t * stride + i];
            return;
        }
        if (at + BLOCK > n) at = n - BLOCK; /* the last block overlaps the one before */
        float sum[BLOCK];
        for (int i = 0; i < BLOCK; i++) sum[i] = weight[0] * source[at + i];
        for (int t = 1; t < count; t++)
            for (int i = 0; i < BLOCK; i++) sum[i] += weight[t] * source[t * stride + at + i];
        for (int i = 0; i < BLOCK; i++) row[at + i] = sum[i];
    }
}
/* `count` is a constant where this is inlined, so the loop over taps unrolls. Writes one float past the last pixel. */
static inline __attribute__((always_inline)) void blend_columns(
    const float *row, const Taps *across, int count, int width, float *line) {
    for (int x = 0; x < width; x++) {
        const float *pixel = row + 3 * (long)across->first[x], *weight = across->weight + (size_t)x * count;
        float4 sum = {0.5f, 0.5f, 0.5f, 0.5f}; /* red, green, blue, and a lane that the next pixel overwrites */
        for (int t = 0; t < count; t++) sum += weight[t] * *(const float4 *)(pixel + 3 * t);
        *(float4 *)(line + 3 * (long)x) = sum;
    }
}

static inline __attribute__((always_inline)) void blend(const uint8_t *source, long stride, const Taps *down,
    const Taps *across, int left, int n, int height, int width, float *row, float *line, uint8_t *target) {
    for (int y = 0; y < height; y++) {
        blend_rows(source + down->first[y] * stride + 3 * (long)left, stride, n,
                   down->weight + (size_t)y * down->most, down->count[y], row);
        switch (across->most) {
            case 1: blend_columns(row, across, 1, width, line); break;
            case 2: blend_columns(row, across, 2, width, line); break;
            case 3: blend_columns(row, across, 3, width, line); break;
            case 4: blend_columns(row, across, 4, width, line); break;
            case 5: blend_columns(row, across, 5, width, line); break;
            case 6: blend_columns(row, across, 6, width, line); break;
            default: blend_columns(row, across, across->most, width, line);
        }
        uint8_t *restrict out = target + 3 * (size_t)width * y;
        const float *restrict in = line;
        for (int i = 0; i < 3 * width; i++) out[i] = (uint8_t)(int)in[i];
    }
}

static void blend_plain(const uint8_t *source, long stride, const Taps *down, const Taps *across, int left, int n,
    int height, int width, float *row, float *line, uint8_t *target) {
    blend(source, stride, down, across, left, n, height, width, row, line, target);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void blend_avx2(const uint8_t *source, long stride, const Taps *down,
    const Taps *across, int left, int n, int height, int width, float *row, float *line, uint8_t *target) {
    blend(source, stride, down, across, left, n, height, width, row, line, target);
}
#define BLEND (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? blend_avx2 : blend_plain)
#else
#define BLEND blend_plain
#endif

/* Taps in the reverse order: the result is its mirror image, pixel for pixel. */
static void reverse(Taps *taps, int n) {
    for (int i = 0, j = n - 1; i < j; i++, j--) {
        int first = taps->first[i], count = taps->count[i];
        taps->first[i] = taps->first[j];
        taps->count[i] = taps->count[j];
        taps->first[j] = first;
        taps->count[j] = count;
        for (int t = 0; t < taps->most; t++) {
            float *a = taps->weight + (size_t)i * taps->most + t, *b = taps->weight + (size_t)j * taps->most + t;
            float weight = *a;
            *a = *b;
            *b = weight;
        }
    }
}

/* Resize the box (top, left, tall, wide; pixels, fractions allowed) of an RGB image (rows, columns, 3) to
 * (height, width, 3), mirrored or not. 0, or -1 when memory is short. */
int resize(const uint8_t *source, int rows, int columns, long stride, double top, double left, double tall,
           double wide, int height, int width, int mirrored, uint8_t *target) {
    Taps down = {0}, across = {0};
    float *row = NULL, *line = malloc((3 * (size_t)width + 1) * sizeof(float));
    int failed = make_taps(&down, rows, top, tall, height) | make_taps(&across, columns, left, wide, width) | !line;
    if (!failed) {
        int begin = across.first[0], end = across.first[width - 1] + across.count[width - 1];
        for (int x = 0; x < width; x++) across.first[x] -= begin;
        if (mirrored) reverse(&across, width);
        /* what a short row of taps reads past the end weighs zero, and must not be NaN: calloc */
        row = calloc(3 * ((size_t)(end - begin) + across.most) + 4, sizeof(float));
        failed = !row;
        if (row) BLEND(source, stride, &down, &across, begin, 3 * (end - begin), height, width, row, line, target);
    }
    free(row); free(line); free(down.first); free(down.weight); free(across.first); free(across.weight);
    return failed ? -1 : 0;
}

/* --- A window of Pillow's resize ---------------------------------------------------------------------------------- */

enum { BITS = 22 }; /* of a weight's fraction, as in Pillow's Resample.c: 32 less 8 of the pixel and 2 */
typedef int32_t int4 __attribute__((vector_size(16), aligned(4)));
typedef uint8_t byte4 __attribute__((vector_size(4), aligned(1)));

typedef struct { int *first, *count, most; int32_t *weight; } PillowTaps;

/* Weights of pixels [from, from + out) of the `whole` that n pixels are resized to; Pillow's order of operations. */
static int make_pillow_taps(PillowTaps *taps, int n, int whole, int from, int out) {
    double step = (double)n / whole, reach = step < 1 ? 1 : step, inverse = 1 / reach;
    taps->most = (int)ceil(reach) * 2 + 1;
    double *exact = malloc(taps->most * sizeof(double));
    taps->first = malloc(2 * (size_t)out * sizeof(int));
    taps->weight = calloc((size_t)out * taps->most, sizeof(int32_t));
    if (!exact || !taps->first || !taps->weight) {
        free(exact);
        return -1;
    }
    taps->count = taps->first + out;
    for (int i = 0; i < out; i++) {
        double centre = (from + i + 0.5) * step, sum = 0;
        int first = (int)(centre - reach + 0.5), last = (int)(centre + reach + 0.5);
        first = first < 0 ? 0 : first;
        last = last > n ? n : last;
        for (int t = 0; t < last - first; t++) {
            double w = fabs((t + first - centre + 0.5) * inverse);
            sum += exact[t] = w < 1 ? 1 - w : 0;
        }
        for (int t = 0; t < last - first; t++) {
            double w = sum != 0 ? exact[t] / sum : exact[t];
            taps->weight[(size_t)i * taps->most + t] = (int32_t)(0.5 + w * (1 << BITS));
        }
        taps->first[i] = first;
        taps->count[i] = last - first;
    }
    free(exact);
    return 0;
}

/* A row of the source -> a row of the middle. Reads a byte past the last pixel, and writes one. */
static inline __attribute__((always_inline)) void pillow_columns(
    const uint8_t *row, const PillowTaps *across, int width, uint8_t *middle) {
    for (int x = 0; x < width; x++) {
        const uint8_t *pixel = row + 3 * (long)across->first[x];
        const int32_t *weight = across->weight + (size_t)x * across->most;
        int4 sum = {1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)};
        for (int t = 0; t < across->count[x]; t++)
            sum += weight[t] * __builtin_convertvector(*(const byte4 *)(pixel + 3 * t), int4);
        *(byte4 *)(middle + 3 * (long)x) = __builtin_convertvector(sum >> BITS, byte4);
    }
}

/* `count` rows of the middle, `stride` apart -> n bytes of the result. */
static inline __attribute__((always_inline)) void pillow_rows(
    const uint8_t *middle, long stride, const int32_t *weight, int count, int n, uint8_t *restrict target) {
    enum { BLOCK = 64 };
    for (int at = 0; at < n; at += BLOCK) {
        int many = n - at < BLOCK ? n - at : BLOCK;
        int32_t sum[BLOCK];
        for (int i = 0; i < BLOCK; i++) sum[i] = 1 << (BITS - 1);
        for (int t = 0; t < count; t++) {
            const uint8_t *line = middle + t * stride + at; /* BLOCK bytes of room behind the last row */
            for (int i = 0; i < BLOCK; i++) sum[i] += weight[t] * line[i];
        }
        uint8_t block[BLOCK];
        for (int i = 0; i < BLOCK; i++) block[i] = (uint8_t)(sum[i] >> BITS);
        memcpy(target + at, block, many);
    }
}

static inline __attribute__((always_inline)) void pillow_window(const uint8_t *source, long stride, const uint8_t *last,
    const PillowTaps *down, const PillowTaps *across, int height, int width, int rows, uint8_t *middle, uint8_t *target) {
    int begin = down->first[0], end = down->first[height - 1] + down->count[height - 1];
    long line = 3 * (long)width + 1;
    for (int y = begin; y < end; y++)
        pillow_columns(y == rows - 1 ? last : source + y * stride, across, width, middle + (y - begin) * line);
    for (int y = 0; y < height; y++)
        pillow_rows(middle + (down->first[y] - begin) * line, line, down->weight + (size_t)y * down->most,
                    down->count[y], 3 * width, target + 3 * (size_t)width * y);
}

static void pillow_plain(const uint8_t *source, long stride, const uint8_t *last, const PillowTaps *down,
    const PillowTaps *across, int height, int width, int rows, uint8_t *middle, uint8_t *target) {
    pillow_window(source, stride, last, down, across, height, width, rows, middle, target);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void pillow_avx2(const uint8_t *source, long stride, const uint8_t *last,
    const PillowTaps *down, const PillowTaps *across, int height, int width, int rows, uint8_t *middle,
    uint8_t *target) {
    pillow_window(source, stride, last, down, across, height, width, rows, middle, target);
}
#define PILLOW (__builtin_cpu_supports("avx2") ? pillow_avx2 : pillow_plain)
#else
#define PILLOW pillow_plain
#endif

/* Rows [top, top + height) and columns [left, left + width) of what Pillow's BILINEAR makes of an RGB image
 * (rows, columns, 3) resized to (tall, wide): columns first, rounded to bytes, then rows. 0, or -1: memory is short. */
int resize_window(const uint8_t *source, int rows, int columns, long stride, int tall, int wide, int top, int left,
                  int height, int width, uint8_t *target) {
    PillowTaps down = {0}, across = {0};
    int failed = make_pillow_taps(&down, rows, tall, top, height) | make_pillow_taps(&across, columns, wide, left, width);
    size_t between = failed ? 0 : down.first[height - 1] + down.count[height - 1] - down.first[0];
    uint8_t *middle = malloc(between * (3 * (size_t)width + 1) + 64);
    uint8_t *last = calloc(3 * (size_t)columns + 1, 1); /* the last row, with a byte behind it */
    failed |= !middle | !last;
    if (!failed) {
        memcpy(last, source + (rows - 1) * stride, 3 * (size_t)columns);
        PILLOW(source, stride, last, &down, &across, height, width, rows, middle, target);
    }
    free(middle); free(last); free(down.first); free(down.weight); free(across.first); free(across.weight);
    return failed ? -1 : 0;
}

#ifdef REGION
#include <stdio.h>
#include <setjmp.h>
#include <jpeglib.h>

typedef struct { struct jpeg_error_mgr base; jmp_buf back; } Errors;
static void leave(j_common_ptr jpeg) { longjmp(((Errors *)jpeg->err)->back, 1); }
static void be_silent(j_common_ptr jpeg, int level) { (void)jpeg; (void)level; }

enum { SPARE = 68 }; /* columns of a region that may come on top of those asked for */

/* Decode rows [y, y + h) and columns [x, x + w) of the JPEG shrunk by `scale` (1, 2, 4, 8) to RGB rows in `pixels`.
 * libjpeg starts at a whole block column; got = {first column, columns}. 0, or -1 when the JPEG cannot be decoded. */
int decode_region(const uint8_t *data, long size, int scale, int x, int y, int w, int h, uint8_t *pixels,
                  long capacity, int *got) {
    struct jpeg_decompress_struct jpeg;
    Errors errors;
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = leave;
    errors.base.emit_message = be_silent;
    if (setjmp(errors.back)) {
        jpeg_destroy_decompress(&jpeg);
        return -1;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg.dct_method = JDCT_ISLOW;
    jpeg.scale_num = 1;
    jpeg.scale_denom = scale;
    jpeg_start_decompress(&jpeg);
    if (x < 0 || y < 0 || w < 1 || h < 1 || (JDIMENSION)x + w > jpeg.output_width ||
        (JDIMENSION)y + h > jpeg.output_height) leave((j_common_ptr)&jpeg);
    /* Two columns more on either side keep the interpolation of colours at the edges exact. */
    JDIMENSION first = x < 2 ? 0 : x - 2, last = (JDIMENSION)x + w + 2, columns;
    columns = (last > jpeg.output_width ? jpeg.output_width : last) - first;
    if (columns < jpeg.output_width) jpeg_crop_scanline(&jpeg, &first, &columns);
    got[0] = first;
    got[1] = columns;
    size_t stride = 3 * (size_t)columns;
    if (stride * h > (size_t)capacity) leave((j_common_ptr)&jpeg);
    if (y) jpeg_skip_scanlines(&jpeg, y);
    while (jpeg.output_scanline < (JDIMENSION)(y + h)) {
        JDIMENSION at = jpeg.output_scanline - y;
        JSAMPROW rows[8];
        for (JDIMENSION i = 0; i < 8; i++) rows[i] = pixels + stride * (at + i < (JDIMENSION)h ? at + i : (JDIMENSION)h - 1);
        jpeg_read_scanlines(&jpeg, rows, (JDIMENSION)h - at < 8 ? (JDIMENSION)h - at : 8);
    }
    jpeg_destroy_decompress(&jpeg);
    return 0;
}

/* A crop of one of several JPEGs: decode_region's rows and columns, and the box (top, left, tall, wide) within them. */
typedef struct {
    const uint8_t *data;
    uint8_t *target;
    long size;
    double top, left, tall, wide;
    int scale, x, y, w, h, mirrored, failed;
} Crop;

/* Decode and resize each to (side, side, 3). Returns how many failed, and marks them. */
int crop_all(Crop *crops, int count, int side) {
    uint8_t *pixels = NULL;
    size_t room = 0;
    int failed = 0;
    for (Crop *c = crops; c < crops + count; c++) {
        int got[2];
        size_t needed = 3 * (size_t)c->h * (c->w + SPARE);
        if (needed > room) {
            free(pixels);
            pixels = malloc(needed);
            room = pixels ? needed : 0;
        }
        c->failed = !pixels ||
            decode_region(c->data, c->size, c->scale, c->x, c->y, c->w, c->h, pixels, room, got) ||
            resize(pixels + 3 * (size_t)(c->x - got[0]), c->h, c->w, 3 * (long)got[1], c->top, c->left, c->tall, c->wide,
                   side, side, c->mirrored, c->target);
        failed += c->failed;
    }
    free(pixels);
    return failed;
}
#endif
