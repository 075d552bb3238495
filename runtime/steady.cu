// Frames steadied where they are: `runtime/steady.py` on the GPU, formula by formula.
//
// Plain C++ for two compilers, see kernels.h. The kernels follow those of steady_motion.cu, in the order in which they
// stand here. A thread makes one value of what its kernel writes. Borders are those of OpenCV, see grids.h.

#include "steady.h"

// ---- a new scene ----

// Totals are integers, so that they do not depend on the order of threads.
DEVICE void add(unsigned long long address, int index, double value) {
    const long long whole = (long long)(value * (1ll << 32));
#ifdef __CUDACC__
    atomicAdd(reinterpret_cast<unsigned long long*>(address) + index, (unsigned long long)whole);
#else
    reinterpret_cast<long long*>(address)[index] += whole;
#endif
}

// Add a run of a column to the totals: for each colour of what the motion leaves of the guide the sum and the sum of
// squares, and both of the guide itself.
DEVICE void measure(const Steady& pass, int x, int run) {
    constexpr int run_px = 32;
    if (x >= pass.guide_width || run * run_px >= pass.guide_height) return;
    float sums[12] = {};
    for (int y = run * run_px; y < at_most((run + 1) * run_px, pass.guide_height); ++y) {
        const int place = 4 * (y * pass.guide_width + x);
        const bool moves = is_moving(pass, x * pass.columns / pass.guide_width, y * pass.rows / pass.guide_height);
        const float *picture = floats(pass.guide) + place, *other = floats(moves ? pass.expected : pass.earlier) + place;
        for (int c = 0; c < 3; ++c) {
            const float change = picture[c] - other[c];
            sums[c] += change, sums[3 + c] += change * change;
            sums[6 + c] += picture[c], sums[9 + c] += picture[c] * picture[c];
        }
    }
    for (int k = 0; k < 12; ++k) add(pass.totals, k, sums[k]);
}

// The mean standard deviation of three colours.
DEVICE float deviation(const Steady& pass, int first) {
    const long long* totals = reinterpret_cast<const long long*>(pass.totals) + first;
    const float scale = 1.0f / (1ll << 32) / (pass.guide_width * pass.guide_height);
    float sum = 0.0f;
    for (int c = 0; c < 3; ++c) {
        const float mean = totals[c] * scale, variance = totals[3 + c] * scale - mean * mean;
        sum += sqrtf(variance > 0.0f ? variance : 0.0f);
    }
    return sum / 3;
}

DEVICE bool is_cut(const Steady& pass) {
    const float limit = pass.cut_ratio * deviation(pass, 6);
    return deviation(pass, 0) > (limit > pass.cut_deviation ? limit : pass.cut_deviation);
}

// ---- what the network painted ----

// Cubic convolution, as OpenCV has it (a = -0.75).
DEVICE void cubic_weights(float t, float (&weights)[4]) {
    const float a = -0.75f, u = 1 - t;
    weights[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    weights[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    weights[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
    weights[3] = 1 - weights[0] - weights[1] - weights[2];
}

// What is no number stays so, and is noticed where it is blended.
DEVICE float in_range(const Steady& pass, float value) { return limited(value, pass.black, pass.white); }

DEVICE float flow_at(const Steady& pass, const Between& cell, int axis) {
    const float* flow = floats(pass.flow) + axis * pass.rows * pass.columns;
    const int upper = cell.top * pass.columns, lower = cell.bottom * pass.columns;
    const unsigned char* mask = reinterpret_cast<const unsigned char*>(pass.mask);
    const auto value = [&](int place) { return mask[place] ? flow[place] : 0.0f; };
    return cell.of(value(upper + cell.left), value(upper + cell.right), value(lower + cell.left),
                   value(lower + cell.right));
}

// The history where the flow points, less what is painted now.
template <typename Value>
DEVICE void gap(const Steady& pass, int x, int y) {
    if (x >= pass.width || y >= pass.height) return;
    const Between cell = between(x, y, pass.width, pass.height, pass.columns, pass.rows);
    const float x_flow = flow_at(pass, cell, 0) * pass.width / pass.columns;
    const float y_flow = flow_at(pass, cell, 1) * pass.height / pass.rows;
    const float left = floorf(x + x_flow), top = floorf(y + y_flow);
    float across[4], down[4];
    cubic_weights(x + x_flow - left, across);
    cubic_weights(y + y_flow - top, down);
    const unsigned long long place = (unsigned long long)y * pass.padded_width + x;
    for (int c = 0; c < 3; ++c) {
        const Value* history = channel<Value>(pass.history, pass, c);
        float moved = 0.0f;
        if (x_flow == 0.0f && y_flow == 0.0f) {
            moved = value_of(history[place]);
        } else {
            for (int j = 0; j < 4; ++j) {
                const Value* row = history + (unsigned long long)within(int(top) + j - 1, pass.height) * pass.padded_width;
                float sum = 0.0f;
                for (int i = 0; i < 4; ++i) sum += across[i] * value_of(row[within(int(left) + i - 1, pass.width)]);
                moved += down[j] * sum;
            }
        }
        const float painted = in_range(pass, value_of(channel<Value>(pass.painted, pass, c)[place]));
        set(channel<Value>(pass.gap, pass, c)[place], moved - painted);
    }
}

// The mean of the gap in each cell.
template <typename Value>
DEVICE void shrink_gap(const Steady& pass, int x, int row) {
    const int c = row / pass.rows, y = row % pass.rows;
    if (x >= pass.columns || c > 2) return;
    const Span across(x, pass.width, pass.columns), down(y, pass.height, pass.rows);
    const Value* plane = channel<Value>(pass.gap, pass, c);
    const float mean = area_mean(across, down, [&](int i, int j) {
        return value_of(plane[(unsigned long long)j * pass.padded_width + i]);
    });
    floats(pass.gap_of_cells)[row * pass.columns + x] = mean / (pass.white - pass.black);
}

// ---- the blend ----

// What is seen of a cell, as its part of the picture moves or stands, averaged around it.
DEVICE float mean_chosen(const Steady& pass, int index, int x, int y, int side) {
    const float* seen = floats(pass.seen) + index * pass.rows * pass.columns;
    float sum = 0.0f;
    for (int j = y - side / 2; j <= y + side / 2; ++j) {
        for (int i = x - side / 2; i <= x + side / 2; ++i) {
            const int u = reflected(i, pass.columns), v = reflected(j, pass.rows);
            sum += seen[((is_moving(pass, u, v) ? 0 : pass.rows) + v) * pass.columns + u];
        }
    }
    return sum / (side * side);
}

DEVICE bool leaves_the_picture(const Steady& pass, int x, int y) {
    const float* flow = floats(pass.flow) + y * pass.columns + x;
    const float u = x + flow[0], v = y + flow[pass.rows * pass.columns];
    return is_moving(pass, x, y) && (u < 0 || v < 0 || u > pass.columns - 1 || v > pass.rows - 1);
}

DEVICE void weigh(const Steady& pass, int x, int y) {
    if (x >= pass.columns || y >= pass.rows) return;
    const bool is_new = is_cut(pass);
    if (x == 0 && y == 0) reinterpret_cast<int*>(pass.flags)[1] = is_new;
    float* weight = floats(pass.weight) + y * pass.columns + x;
    *weight = 0.0f;
    if (is_new || leaves_the_picture(pass, x, y)) return;
    const float difference = mean_chosen(pass, 0, x, y, pass.difference_side) / pass.difference;
    const float light = mean_chosen(pass, 2, x, y, pass.light_side);
    const float now = mean_around(floats(pass.luma_of_cells), x, y, pass.columns, pass.rows, pass.light_side);
    const float light_change = (now - light) / (light + pass.darkness) / pass.light_change;
    float repainted = 0.0f;
    for (int c = 0; c < 3; ++c) {
        const float* plane = floats(pass.gap_of_cells) + c * pass.rows * pass.columns;
        const float mean = mean_around(plane, x, y, pass.columns, pass.rows, pass.repainted_side) / pass.repainted;
        repainted += mean * mean / 3;
    }
    *weight = pass.share * expf(-(difference * difference + light_change * light_change + repainted));
}

// a m W(S) + (1 - a m) O, which is the history of the next frame.
template <typename Value>
DEVICE void blend(const Steady& pass, int x, int y) {
    int* flags = reinterpret_cast<int*>(pass.flags);
    if (pass.is_first && x == 0 && y == 0) flags[1] = 0;
    if (x >= pass.width || y >= pass.height) return;
    const unsigned long long place = (unsigned long long)y * pass.padded_width + x;
    float weight = 0.0f;
    if (!pass.is_first) {
        const Between cell = between(x, y, pass.width, pass.height, pass.columns, pass.rows);
        weight = cell.in(floats(pass.weight), pass.columns);
    }
    for (int c = 0; c < 3; ++c) {
        const float painted = value_of(channel<Value>(pass.painted, pass, c)[place]);
        if (painted != painted) flags[0] = 1;
        float result = in_range(pass, painted);
        // Cubic convolution overshoots at edges.
        if (weight) result = in_range(pass, result + weight * value_of(channel<Value>(pass.gap, pass, c)[place]));
        set(channel<Value>(pass.history, pass, c)[place], result);
    }
}

#ifndef __CUDACC__
extern "C" int size_of_steady() { return sizeof(Steady); }
#endif

KERNEL(steady_measure, Steady, measure)
KERNEL(steady_gap_f16, Steady, gap<Half>)
KERNEL(steady_gap_f32, Steady, gap<float>)
KERNEL(steady_shrink_gap_f16, Steady, shrink_gap<Half>)
KERNEL(steady_shrink_gap_f32, Steady, shrink_gap<float>)
KERNEL(steady_weigh, Steady, weigh)
KERNEL(steady_blend_f16, Steady, blend<Half>)
KERNEL(steady_blend_f32, Steady, blend<float>)
