// 4:2:0 video surfaces <-> planar RGB for a network, one pass each way.
//
// Plain C++ for two compilers, see kernels.h. `runtime/device_color.py` fills `Pass`; its NumPy type and this struct
// must agree field by field.
//
// A thread handles a run of 8 or 16 pixels. Where the run lies inside the picture and everything is aligned, it moves
// 16 bytes at a time (8 where 8 pixels of 8 bits have no more); at borders and odd pitches one value at a time. Both
// give the same values. Formulas: ITU-T H.273, 8.3; the coefficients come folded with range and bit depth.

#include "kernels.h"
#include "runs.h"

// One 4:2:0 picture. NV12 and P010 interleave chroma as Cb, Cr (step 2), planar formats do not (step 1).
struct Surface {
    unsigned long long y, cb, cr;  // addresses of the first samples
    int luma_pitch_bytes, chroma_pitch_bytes;
    int chroma_step;  // samples from one Cb to the next
    int shift;        // unused low bits of a sample: 6 for P010
    int width, height;  // pixels; odd ones have a last chroma sample of their own
    int is_aligned;     // whether 16-byte accesses are allowed
    int is_centered_x, is_centered_y;  // whether chroma lies between two pixels or on the even one
};

struct Pass {
    Surface surface;  // read by rgb_from_yuv, written by yuv_from_rgb
    unsigned long long rgb;     // (3, padded_height, padded_width): the network's input, the source picture
    unsigned long long styled;  // the same shape: the network's output
    unsigned long long mask;    // (height, width) float in [0, 1], 0 for none
    unsigned long long not_a_number;  // int set to 1 when `styled` holds one
    int width, height;                // of the picture inside, pixels
    int padded_width, padded_height;
    int is_rgb_aligned;
    int keeps_colors;  // brightness from `styled`, colours from `rgb`
    float strength;
    float black, white;  // values of black and white at the network
    float luma_scale, luma_offset, red_cr, green_cb, green_cr, blue_cb;  // YUV codes to RGB in [0, 1]
    float chroma_middle;
    float y_red, y_green, y_blue, y_offset;  // RGB in [0, 1] to YUV codes
    float cb_red, cb_green, cb_blue, cr_red, cr_green, cr_blue;
    float max_code;
    float share_red, share_green, share_blue;  // of luma, for keeps_colors
};

// ---- numbers ----

// Not a number becomes 0, as it does in a converter of video.
DEVICE float unit(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }

// A position in [0, size) for one right of or below the picture, mirrored at its last pixel, to and fro.
DEVICE int mirrored(int position, int size) {
    if (position < size) return position;
    if (size == 1) return 0;
    const int period = 2 * (size - 1), folded = position % period;
    return folded < size ? folded : period - folded;
}

template <typename Sample>
DEVICE Sample* row(unsigned long long plane, int pitch_bytes, int y) {
    return reinterpret_cast<Sample*>(plane + (unsigned long long)y * pitch_bytes);
}

template <typename Value>
DEVICE Value* channel_row(unsigned long long planes, const Pass& pass, int channel, int y) {
    return reinterpret_cast<Value*>(planes) +
           ((unsigned long long)channel * pass.padded_height + y) * pass.padded_width;
}

// ---- YUV to RGB ----

// Weight of the lower or right of the two chroma samples around a pixel, whose first one is at `first`.
// On the even pixel: a sample lies at 2k. Centred: at 2k + 1/2.
DEVICE float weight_of_next(int position, int is_centered, int& first) {
    const int quarters = 2 * position - is_centered;  // position in quarters of a chroma sample
    first = quarters >> 2;
    return 0.25f * (quarters & 3);
}

// Chroma at (x, y), interpolated linearly; the border samples go on outside.
template <typename Sample>
DEVICE void chroma_at(const Surface& surface, int x, int y, float& cb, float& cr) {
    const int columns = (surface.width + 1) / 2, rows = (surface.height + 1) / 2;
    int left, upper;
    const float right_weight = weight_of_next(x, surface.is_centered_x, left);
    const float lower_weight = weight_of_next(y, surface.is_centered_y, upper);
    cb = cr = 0.0f;
#pragma unroll 1
    for (int j = 0; j < 2; ++j) {
        const int v = within(upper + j, rows);
        const float row_weight = j ? lower_weight : 1.0f - lower_weight;
        for (int i = 0; i < 2; ++i) {
            const int u = within(left + i, columns) * surface.chroma_step;
            const float weight = row_weight * (i ? right_weight : 1.0f - right_weight);
            cb += weight * (row<Sample>(surface.cb, surface.chroma_pitch_bytes, v)[u] >> surface.shift);
            cr += weight * (row<Sample>(surface.cr, surface.chroma_pitch_bytes, v)[u] >> surface.shift);
        }
    }
}

// Chroma of an aligned run inside the picture: 16 bytes of chroma from each of the two rows around `y`, of which
// each serves two pixels, and one sample on either side.
template <typename Sample, int count>
DEVICE void chroma_of_run(const Surface& surface, int x0, int y, float (&cb)[count], float (&cr)[count]) {
    constexpr int half = count / 2;
    const int columns = (surface.width + 1) / 2, rows = (surface.height + 1) / 2, u0 = x0 / 2;
    float cb_near[half + 2], cr_near[half + 2];
#pragma unroll
    for (int i = 0; i < half + 2; ++i) cb_near[i] = cr_near[i] = 0.0f;
    int upper;
    const float lower_weight = weight_of_next(y, surface.is_centered_y, upper);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int v = within(upper + j, rows);
        const float weight = j ? lower_weight : 1.0f - lower_weight;
        const Sample* cb_row = row<Sample>(surface.cb, surface.chroma_pitch_bytes, v);
        const Sample* cr_row = row<Sample>(surface.cr, surface.chroma_pitch_bytes, v);
        if (surface.chroma_step == 2) {
            int pairs[count];  // Cb, Cr, Cb, ...
            load_run(cb_row + 2 * u0, pairs);
#pragma unroll
            for (int i = 0; i < half; ++i) {
                cb_near[i + 1] += weight * (pairs[2 * i] >> surface.shift);
                cr_near[i + 1] += weight * (pairs[2 * i + 1] >> surface.shift);
            }
        } else {
#pragma unroll
            for (int i = 0; i < half; ++i) {  // 8 bytes of each plane: neighbours in a warp still share lines
                cb_near[i + 1] += weight * (cb_row[u0 + i] >> surface.shift);
                cr_near[i + 1] += weight * (cr_row[u0 + i] >> surface.shift);
            }
        }
        const int left = within(u0 - 1, columns) * surface.chroma_step;
        const int right = within(u0 + half, columns) * surface.chroma_step;
        cb_near[0] += weight * (cb_row[left] >> surface.shift);
        cr_near[0] += weight * (cr_row[left] >> surface.shift);
        cb_near[half + 1] += weight * (cb_row[right] >> surface.shift);
        cr_near[half + 1] += weight * (cr_row[right] >> surface.shift);
    }
    const float even_previous = surface.is_centered_x ? 0.25f : 0.0f, odd_next = surface.is_centered_x ? 0.25f : 0.5f;
#pragma unroll
    for (int i = 0; i < half; ++i) {
        cb[2 * i] = even_previous * cb_near[i] + (1.0f - even_previous) * cb_near[i + 1];
        cr[2 * i] = even_previous * cr_near[i] + (1.0f - even_previous) * cr_near[i + 1];
        cb[2 * i + 1] = (1.0f - odd_next) * cb_near[i + 1] + odd_next * cb_near[i + 2];
        cr[2 * i + 1] = (1.0f - odd_next) * cr_near[i + 1] + odd_next * cr_near[i + 2];
    }
}

DEVICE void rgb_of(const Pass& pass, int luma, float cb, float cr, float (&rgb)[3]) {
    const float level = pass.luma_scale * luma + pass.luma_offset;
    const float blue_difference = cb - pass.chroma_middle, red_difference = cr - pass.chroma_middle;
    const float range = pass.white - pass.black;
    rgb[0] = unit(level + pass.red_cr * red_difference) * range + pass.black;
    rgb[1] = unit(level + pass.green_cb * blue_difference + pass.green_cr * red_difference) * range + pass.black;
    rgb[2] = unit(level + pass.blue_cb * blue_difference) * range + pass.black;
}

// Fill one run of `pass.rgb` in row `y` of the padded picture.
template <typename Sample, typename Value>
DEVICE void rgb_from_yuv(const Pass& pass, int run, int y) {
    constexpr int count = 16 / sizeof(Sample);
    const int x0 = run * count;
    if (x0 >= pass.padded_width || y >= pass.padded_height) return;
    const Surface& surface = pass.surface;
    const int source_y = mirrored(y, pass.height);
    const Sample* luma_row = row<Sample>(surface.y, surface.luma_pitch_bytes, source_y);
    Value* red_row = channel_row<Value>(pass.rgb, pass, 0, y);
    Value* green_row = channel_row<Value>(pass.rgb, pass, 1, y);
    Value* blue_row = channel_row<Value>(pass.rgb, pass, 2, y);
    float pixel[3];
    if (surface.is_aligned && pass.is_rgb_aligned && x0 + count <= pass.width) {
        int luma[count];
        float cb[count], cr[count], red[count], green[count], blue[count];
        load_run(luma_row + x0, luma);
        chroma_of_run<Sample>(surface, x0, source_y, cb, cr);
#pragma unroll
        for (int i = 0; i < count; ++i) {
            rgb_of(pass, luma[i] >> surface.shift, cb[i], cr[i], pixel);
            red[i] = pixel[0], green[i] = pixel[1], blue[i] = pixel[2];
        }
        store_run(red_row + x0, red);
        store_run(green_row + x0, green);
        store_run(blue_row + x0, blue);
        return;
    }
#pragma unroll 1
    for (int x = x0; x < at_most(x0 + count, pass.padded_width); ++x) {
        const int source_x = mirrored(x, pass.width);
        float cb, cr;
        chroma_at<Sample>(surface, source_x, source_y, cb, cr);
        rgb_of(pass, luma_row[source_x] >> surface.shift, cb, cr, pixel);
        set(red_row[x], pixel[0]);
        set(green_row[x], pixel[1]);
        set(blue_row[x], pixel[2]);
    }
}

// ---- RGB to YUV ----

// One finished pixel from network values: blended, in [0, 1].
DEVICE void finish(const Pass& pass, float weight, const float (&source)[3], const float (&styled)[3],
                   float (&result)[3], int& has_nan) {
    const float scale = 1.0f / (pass.white - pass.black);
    float picture[3], style[3];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        has_nan |= styled[channel] != styled[channel];
        style[channel] = unit((styled[channel] - pass.black) * scale);
        picture[channel] = (source[channel] - pass.black) * scale;
    }
    // Equal steps in R, G and B change luma and leave both colour differences as they are.
    const float step = weight * (pass.share_red * (style[0] - picture[0]) + pass.share_green * (style[1] - picture[1]) +
                                 pass.share_blue * (style[2] - picture[2]));
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        const float blended = picture[channel] + weight * (style[channel] - picture[channel]);
        result[channel] = unit(pass.keeps_colors ? picture[channel] + step : blended);
    }
}

DEVICE int rounded(float code, float max_code) {
    return int((code > 0.0f ? (code < max_code ? code : max_code) : 0.0f) + 0.5f);
}

DEVICE float weight_at(const Pass& pass, int x, int y) {
    return pass.mask ? pass.strength * reinterpret_cast<const float*>(pass.mask)[(unsigned long long)y * pass.width + x]
                     : pass.strength;
}

DEVICE bool needs_source(const Pass& pass) { return pass.strength < 1.0f || pass.mask || pass.keeps_colors; }

// One finished pixel inside the picture.
template <typename Value>
DEVICE void finished_pixel(const Pass& pass, int x, int y, float (&pixel)[3], int& has_nan) {
    float styled[3], source[3];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        styled[channel] = value_of(channel_row<Value>(pass.styled, pass, channel, y)[x]);
        source[channel] = needs_source(pass) ? value_of(channel_row<Value>(pass.rgb, pass, channel, y)[x]) : styled[channel];
    }
    finish(pass, weight_at(pass, x, y), source, styled, pixel, has_nan);
}

// An aligned run of finished pixels; index 0 of the result is the pixel left of the run.
template <typename Value, int count>
DEVICE void finished_run(const Pass& pass, int x0, int y, float (&pixels)[3][count + 1], int& has_nan) {
    float styled[3][count], source[3][count];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        load_run(channel_row<Value>(pass.styled, pass, channel, y) + x0, styled[channel]);
        if (needs_source(pass)) load_run(channel_row<Value>(pass.rgb, pass, channel, y) + x0, source[channel]);
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
        const float of_style[3] = {styled[0][i], styled[1][i], styled[2][i]};
        float of_source[3] = {of_style[0], of_style[1], of_style[2]}, pixel[3];
        if (needs_source(pass)) of_source[0] = source[0][i], of_source[1] = source[1][i], of_source[2] = source[2][i];
        finish(pass, weight_at(pass, x0 + i, y), of_source, of_style, pixel, has_nan);
        pixels[0][i + 1] = pixel[0], pixels[1][i + 1] = pixel[1], pixels[2][i + 1] = pixel[2];
    }
    float left[3] = {0.0f, 0.0f, 0.0f};
    if (!pass.surface.is_centered_x) finished_pixel<Value>(pass, at_least(x0 - 1, 0), y, left, has_nan);
    pixels[0][0] = left[0], pixels[1][0] = left[1], pixels[2][0] = left[2];
}

DEVICE int luma_of(const Pass& pass, float red, float green, float blue) {
    return rounded(pass.y_red * red + pass.y_green * green + pass.y_blue * blue + pass.y_offset, pass.max_code);
}

// Chroma between two pixels is their mean; on the even one it is filtered 1 2 1 with both neighbours.
// `position` is -1, 0 or 1: the pixel before, the even one, the odd one.
DEVICE float filter_weight(int is_centered, int position) {
    return is_centered ? (position < 0 ? 0.0f : 0.5f) : (position ? 0.25f : 0.5f);
}

// Write one run of luma in two rows and the chroma row they share. Outside the picture its border goes on.
template <typename Sample, typename Value>
DEVICE void yuv_from_rgb(const Pass& pass, int run, int chroma_y) {
    constexpr int count = 8, half = count / 2;
    const Surface& surface = pass.surface;
    const int x0 = run * count;
    if (x0 >= surface.width || 2 * chroma_y >= surface.height) return;
    Sample* cb_target = row<Sample>(surface.cb, surface.chroma_pitch_bytes, chroma_y);
    Sample* cr_target = row<Sample>(surface.cr, surface.chroma_pitch_bytes, chroma_y);
    const int first_row = surface.is_centered_y ? 0 : -1;
    int has_nan = 0;
    if (surface.is_aligned && pass.is_rgb_aligned && x0 + count <= pass.width) {
        float cb[half] = {}, cr[half] = {};
#pragma unroll 1
        for (int j = first_row; j < 2; ++j) {
            const int y = 2 * chroma_y + j;
            float pixels[3][count + 1];
            finished_run<Value, count>(pass, x0, within(y, pass.height), pixels, has_nan);
#pragma unroll
            for (int i = 0; i < count + 1; ++i) {
                const int position = i == 0 ? -1 : (i - 1) % 2;
                const float red = pixels[0][i], green = pixels[1][i], blue = pixels[2][i];
                const float row_weight = filter_weight(surface.is_centered_y, j);
                const float cb_part = row_weight * (pass.cb_red * red + pass.cb_green * green + pass.cb_blue * blue);
                const float cr_part = row_weight * (pass.cr_red * red + pass.cr_green * green + pass.cr_blue * blue);
                if (i > 0) {
                    cb[(i - 1) / 2] += filter_weight(surface.is_centered_x, position) * cb_part;
                    cr[(i - 1) / 2] += filter_weight(surface.is_centered_x, position) * cr_part;
                }
                if (i % 2 == 0 && i < count) {  // the odd pixel before the next pair
                    cb[i / 2] += filter_weight(surface.is_centered_x, -1) * cb_part;
                    cr[i / 2] += filter_weight(surface.is_centered_x, -1) * cr_part;
                }
            }
            if (j < 0 || y >= surface.height) continue;
            int luma[count];
#pragma unroll
            for (int i = 0; i < count; ++i) {
                luma[i] = luma_of(pass, pixels[0][i + 1], pixels[1][i + 1], pixels[2][i + 1]) << surface.shift;
            }
            store_run(row<Sample>(surface.y, surface.luma_pitch_bytes, y) + x0, luma);
        }
        int pairs[count];
#pragma unroll
        for (int i = 0; i < half; ++i) {
            pairs[2 * i] = rounded(cb[i] + pass.chroma_middle, pass.max_code) << surface.shift;
            pairs[2 * i + 1] = rounded(cr[i] + pass.chroma_middle, pass.max_code) << surface.shift;
        }
        if (surface.chroma_step == 2) {
            store_run(cb_target + x0, pairs);
        } else {
#pragma unroll
            for (int i = 0; i < half; ++i) {
                cb_target[x0 / 2 + i] = Sample(pairs[2 * i]);
                cr_target[x0 / 2 + i] = Sample(pairs[2 * i + 1]);
            }
        }
    } else {
#pragma unroll 1
        for (int u = x0 / 2; u < at_most(x0 / 2 + half, (surface.width + 1) / 2); ++u) {
            float cb = 0.0f, cr = 0.0f;
#pragma unroll 1
            for (int j = first_row; j < 2; ++j) {
#pragma unroll 1
                for (int i = surface.is_centered_x ? 0 : -1; i < 2; ++i) {
                    const int x = 2 * u + i, y = 2 * chroma_y + j;
                    const float weight = filter_weight(surface.is_centered_x, i) * filter_weight(surface.is_centered_y, j);
                    float pixel[3];
                    finished_pixel<Value>(pass, within(x, pass.width), within(y, pass.height), pixel, has_nan);
                    cb += weight * (pass.cb_red * pixel[0] + pass.cb_green * pixel[1] + pass.cb_blue * pixel[2]);
                    cr += weight * (pass.cr_red * pixel[0] + pass.cr_green * pixel[1] + pass.cr_blue * pixel[2]);
                    if (i >= 0 && j >= 0 && x < surface.width && y < surface.height) {
                        row<Sample>(surface.y, surface.luma_pitch_bytes, y)[x] =
                            Sample(luma_of(pass, pixel[0], pixel[1], pixel[2]) << surface.shift);
                    }
                }
            }
            cb_target[u * surface.chroma_step] = Sample(rounded(cb + pass.chroma_middle, pass.max_code) << surface.shift);
            cr_target[u * surface.chroma_step] = Sample(rounded(cr + pass.chroma_middle, pass.max_code) << surface.shift);
        }
    }
    if (has_nan && pass.not_a_number) *reinterpret_cast<int*>(pass.not_a_number) = 1;
}

#ifndef __CUDACC__
extern "C" int size_of_pass() { return sizeof(Pass); }
#endif

KERNEL(rgb_from_yuv_u8_f16, Pass, (rgb_from_yuv<unsigned char, Half>))
KERNEL(rgb_from_yuv_u8_f32, Pass, (rgb_from_yuv<unsigned char, float>))
KERNEL(rgb_from_yuv_u16_f16, Pass, (rgb_from_yuv<unsigned short, Half>))
KERNEL(rgb_from_yuv_u16_f32, Pass, (rgb_from_yuv<unsigned short, float>))
KERNEL(yuv_from_rgb_u8_f16, Pass, (yuv_from_rgb<unsigned char, Half>))
KERNEL(yuv_from_rgb_u8_f32, Pass, (yuv_from_rgb<unsigned char, float>))
KERNEL(yuv_from_rgb_u16_f16, Pass, (yuv_from_rgb<unsigned short, Half>))
KERNEL(yuv_from_rgb_u16_f32, Pass, (yuv_from_rgb<unsigned short, float>))
