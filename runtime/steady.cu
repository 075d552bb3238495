// Frames steadied where they are: `runtime/steady.py` on the GPU, formula by formula, with a motion search of its own.
//
// Plain C++ for two compilers, see kernels.h. `runtime/device_steady.py` fills `Steady` and queues the kernels, in the
// order in which they stand here; its NumPy type and this struct must agree field by field. The constants are those of
// `runtime/steady_constants.py`. A thread makes one value of what its kernel writes.
//
// Three grids lie over a picture: its pixels, those of a guide (the source made small) and cells, squares of
// the guide's.
// Borders are those of OpenCV, which the CPU works with: filters mirror without the last pixel, samples repeat it.

#include "grids.h"
#include "kernels.h"

struct Level {  // of the search: a luma picture of the guide, the same of the frame before, motion on cells of it
    unsigned long long luma, earlier_luma;  // (height, width) float
    unsigned long long known, found;        // flow (2, rows, columns) float in cells: to begin with, and found
    unsigned long long sums;                // (8, rows, columns) float
    int width, height, columns, rows;
    int known_columns, known_rows;  // 0 where nothing is known: the search begins with no motion
    float known_scale;              // 2 from a grid of half the size, else 1
    int ignores_light;              // whether only what differs from the mean around counts
};

struct Steady {
    Level level;
    unsigned long long source, painted;    // (3, padded_height, padded_width): the network's input and output
    unsigned long long history, gap;       // the same shape: the last result, here also the new one; W(history) - painted
    unsigned long long guide, earlier;     // (guide_height, guide_width, 4) float: red, green, blue, luma in [0, 1]
    unsigned long long expected;           // the same: `earlier` where the flow points
    unsigned long long luma_of_cells;      // (rows, columns) float
    unsigned long long flow;               // (2, rows, columns) float in cells, 0 where nothing was searched
    unsigned long long seen;               // (4, rows, columns) float, see steady_compare
    unsigned long long mask, spread_mask;  // (rows, columns) bytes: whether something moves
    unsigned long long gap_of_cells;       // (3, rows, columns) float in [-1, 1]
    unsigned long long weight;             // (rows, columns) float: a m
    unsigned long long totals;             // 12 integers, see steady_measure
    unsigned long long flags;              // two int: `painted` holds values that are no numbers; a new scene begins
    int width, height, padded_width, padded_height;
    int guide_width, guide_height, columns, rows;
    int spread_x, spread_y, spread_value;  // reach in cells and what spreads, see steady_spread
    int is_first;                          // nothing is remembered
    float black, white;                    // values of black and white at the network
    float share;                           // a
    float luma_red, luma_green, luma_blue, grey_red, grey_green, grey_blue;
    float difference, light_change, darkness, repainted;
    int difference_side, light_side, repainted_side, sum_side, flow_side;  // of means, in cells
    float cell_side;  // in pixels of the guide
    float largest_step, flatness, motion_gain, motion_gain_offset;
    float cut_ratio, cut_deviation;
};

// ---- planes ----

template <typename Value>
DEVICE Value* channel(unsigned long long planes, const Steady& pass, int index) {
    return reinterpret_cast<Value*>(planes) + (unsigned long long)index * pass.padded_height * pass.padded_width;
}

// ---- the guide ----

template <typename Value>
DEVICE void guide(const Steady& pass, int x, int y) {
    if (x == 0 && y == 0) {
        for (int i = 0; i < 12; ++i) reinterpret_cast<unsigned long long*>(pass.totals)[i] = 0;
    }
    if (x >= pass.guide_width || y >= pass.guide_height) return;
    const Span across(x, pass.width, pass.guide_width), down(y, pass.height, pass.guide_height);
    float rgb[3];
    for (int c = 0; c < 3; ++c) {
        const Value* plane = channel<Value>(pass.source, pass, c);
        const float mean = area_mean(across, down, [&](int i, int j) {
            return value_of(plane[(unsigned long long)j * pass.padded_width + i]);
        });
        rgb[c] = (mean - pass.black) / (pass.white - pass.black);
    }
    const float luma = pass.luma_red * rgb[0] + pass.luma_green * rgb[1] + pass.luma_blue * rgb[2];
    const int place = y * pass.guide_width + x;
    float* target = floats(pass.guide) + 4 * place;
    target[0] = rgb[0], target[1] = rgb[1], target[2] = rgb[2], target[3] = luma;
    floats(pass.level.luma)[place] = luma;
}

// The luma of cells, which is the picture of the next level.
DEVICE void halve(const Steady& pass, int x, int y) {
    const Level& level = pass.level;
    if (x >= level.columns || y >= level.rows) return;
    const Span across(x, level.width, level.columns), down(y, level.height, level.rows);
    floats(level.found)[y * level.columns + x] =
        area_mean(across, down, [&](int i, int j) { return floats(level.luma)[j * level.width + i]; });
}

// ---- motion: Lucas and Kanade's method on every level, from the coarsest to the guide ----

struct Flow {
    float x, y;  // in cells
};

DEVICE Flow known_flow(const Level& level, int x, int y, int width, int height) {
    if (!level.known_columns) return Flow{0.0f, 0.0f};
    const Between place = between(x, y, width, height, level.known_columns, level.known_rows);
    const float* flow = floats(level.known);
    return Flow{level.known_scale * place.in(flow, level.known_columns),
                level.known_scale * place.in(flow + level.known_rows * level.known_columns, level.known_columns)};
}

// For every cell the means of both slopes and of what the known flow leaves of the picture, and of their products.
DEVICE void products(const Steady& pass, int x, int y) {
    const Level& level = pass.level;
    if (x >= level.columns || y >= level.rows) return;
    const Span across(x, level.width, level.columns), down(y, level.height, level.rows);
    float sums[8] = {};
    for (int j = down.first; j <= down.last; ++j) {
        const float* row[3];
        for (int k = 0; k < 3; ++k) row[k] = floats(level.luma) + reflected(j + k - 1, level.height) * level.width;
        for (int i = across.first; i <= across.last; ++i) {
            const int before = reflected(i - 1, level.width), after = reflected(i + 1, level.width);
            // Scharr's weights, whose sum is 32.
            const float x_slope = (3 * (row[0][after] - row[0][before]) + 10 * (row[1][after] - row[1][before]) +
                                   3 * (row[2][after] - row[2][before])) / 32;
            const float y_slope = (3 * (row[2][before] - row[0][before]) + 10 * (row[2][i] - row[0][i]) +
                                   3 * (row[2][after] - row[0][after])) / 32;
            const Flow flow = known_flow(level, i, j, level.width, level.height);
            const Between place(i + pass.cell_side * flow.x, j + pass.cell_side * flow.y, level.width, level.height);
            const float remainder = row[1][i] - place.in(floats(level.earlier_luma), level.width);
            const float weight = across.weight(i) * down.weight(j);
            sums[0] += weight * x_slope * x_slope;
            sums[1] += weight * x_slope * y_slope;
            sums[2] += weight * y_slope * y_slope;
            sums[3] += weight * x_slope * remainder;
            sums[4] += weight * y_slope * remainder;
            sums[5] += weight * x_slope;
            sums[6] += weight * y_slope;
            sums[7] += weight * remainder;
        }
    }
    for (int k = 0; k < 8; ++k) floats(level.sums)[(k * level.rows + y) * level.columns + x] = sums[k];
}

// Where the remaining difference says that a cell was.
DEVICE Flow improved(const Steady& pass, int x, int y) {
    const Level& level = pass.level;
    const int reach = pass.sum_side / 2, num_places = pass.sum_side * pass.sum_side;
    float sums[8] = {};
    for (int j = y - reach; j <= y + reach; ++j) {
        const int row = reflected(j, level.rows);
        for (int i = x - reach; i <= x + reach; ++i) {
            const float* sum = floats(level.sums) + row * level.columns + reflected(i, level.columns);
            for (int k = 0; k < 8; ++k) sums[k] += sum[k * level.rows * level.columns];
        }
    }
    for (int k = 0; k < 8; ++k) sums[k] /= num_places;
    if (level.ignores_light) {
        const float x_slope = sums[5], y_slope = sums[6], remainder = sums[7];
        sums[0] -= x_slope * x_slope, sums[1] -= x_slope * y_slope, sums[2] -= y_slope * y_slope;
        sums[3] -= x_slope * remainder, sums[4] -= y_slope * remainder;
    }
    const float xx = sums[0] + pass.flatness, xy = sums[1], yy = sums[2] + pass.flatness;
    const float determinant = xx * yy - xy * xy, limit = pass.largest_step;
    const Flow flow = known_flow(level, x, y, level.columns, level.rows);
    return Flow{flow.x + limited((yy * sums[3] - xy * sums[4]) / determinant, -limit, limit) / pass.cell_side,
                flow.y + limited((xx * sums[4] - xy * sums[3]) / determinant, -limit, limit) / pass.cell_side};
}

DEVICE void step(const Steady& pass, int x, int y) {
    const Level& level = pass.level;
    if (x >= level.columns || y >= level.rows) return;
    const int reach = pass.flow_side / 2;
    Flow sum = {0.0f, 0.0f};
    for (int j = y - reach; j <= y + reach; ++j) {
        for (int i = x - reach; i <= x + reach; ++i) {
            const Flow flow = improved(pass, reflected(i, level.columns), reflected(j, level.rows));
            sum.x += flow.x, sum.y += flow.y;
        }
    }
    const int place = y * level.columns + x, num_places = pass.flow_side * pass.flow_side;
    floats(level.found)[place] = sum.x / num_places;
    floats(level.found)[level.rows * level.columns + place] = sum.y / num_places;
}

// ---- what moves ----

// The earlier guide where the flow points.
DEVICE void expect(const Steady& pass, int x, int y) {
    if (x >= pass.guide_width || y >= pass.guide_height) return;
    const Between cell = between(x, y, pass.guide_width, pass.guide_height, pass.columns, pass.rows);
    const float* flow = floats(pass.flow);
    const Between place(x + pass.cell_side * cell.in(flow, pass.columns),
                        y + pass.cell_side * cell.in(flow + pass.rows * pass.columns, pass.columns), pass.guide_width,
                        pass.guide_height);
    for (int c = 0; c < 4; ++c) {
        floats(pass.expected)[4 * (y * pass.guide_width + x) + c] =
            place.in(floats(pass.earlier) + c, pass.guide_width, 4);
    }
}

DEVICE float apart(const Steady& pass, const float* first, const float* second) {
    return pass.grey_red * fabsf(first[0] - second[0]) + pass.grey_green * fabsf(first[1] - second[1]) +
           pass.grey_blue * fabsf(first[2] - second[2]);
}

// For every cell: how far the guide is from the earlier one, moved and as it stood, and the luma of both.
DEVICE void compare(const Steady& pass, int x, int y) {
    if (x >= pass.columns || y >= pass.rows) return;
    const Span across(x, pass.guide_width, pass.columns), down(y, pass.guide_height, pass.rows);
    const int num_cells = pass.rows * pass.columns;
    float* seen = floats(pass.seen) + y * pass.columns + x;
    for (int k = 0; k < 2; ++k) {
        const float *picture = floats(pass.guide), *other = floats(k ? pass.earlier : pass.expected);
        seen[k * num_cells] = area_mean(across, down, [&](int i, int j) {
            const int place = 4 * (j * pass.guide_width + i);
            return apart(pass, picture + place, other + place);
        });
        seen[(2 + k) * num_cells] =
            area_mean(across, down, [&](int i, int j) { return other[4 * (j * pass.guide_width + i) + 3]; });
    }
}

DEVICE float mean_seen(const Steady& pass, int index, int x, int y) {
    const float* values = floats(pass.seen) + index * pass.rows * pass.columns;
    return mean_around(values, x, y, pass.columns, pass.rows, pass.difference_side);
}

// Whether motion explains a cell so much better than standing still that it counts.
DEVICE void move(const Steady& pass, int x, int y) {
    if (x >= pass.columns || y >= pass.rows) return;
    const float limit = pass.motion_gain * mean_seen(pass, 0, x, y) + pass.motion_gain_offset;
    reinterpret_cast<unsigned char*>(pass.mask)[y * pass.columns + x] = mean_seen(pass, 1, x, y) > limit;
}

// `spread_mask` has `spread_value` wherever `mask` has it within reach.
DEVICE void spread(const Steady& pass, int x, int y) {
    if (x >= pass.columns || y >= pass.rows) return;
    const unsigned char* mask = reinterpret_cast<const unsigned char*>(pass.mask);
    int is_found = 0;
    for (int j = at_least(y - pass.spread_y, 0); j <= at_most(y + pass.spread_y, pass.rows - 1); ++j) {
        for (int i = at_least(x - pass.spread_x, 0); i <= at_most(x + pass.spread_x, pass.columns - 1); ++i) {
            is_found |= mask[j * pass.columns + i] == pass.spread_value;
        }
    }
    reinterpret_cast<unsigned char*>(pass.spread_mask)[y * pass.columns + x] =
        is_found ? pass.spread_value : 1 - pass.spread_value;
}

DEVICE bool is_moving(const Steady& pass, int x, int y) {
    return reinterpret_cast<const unsigned char*>(pass.mask)[y * pass.columns + x];
}

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

KERNEL(steady_guide_f16, Steady, guide<Half>)
KERNEL(steady_guide_f32, Steady, guide<float>)
KERNEL(steady_halve, Steady, halve)
KERNEL(steady_products, Steady, products)
KERNEL(steady_step, Steady, step)
KERNEL(steady_expect, Steady, expect)
KERNEL(steady_compare, Steady, compare)
KERNEL(steady_move, Steady, move)
KERNEL(steady_spread, Steady, spread)
KERNEL(steady_measure, Steady, measure)
KERNEL(steady_gap_f16, Steady, gap<Half>)
KERNEL(steady_gap_f32, Steady, gap<float>)
KERNEL(steady_shrink_gap_f16, Steady, shrink_gap<Half>)
KERNEL(steady_shrink_gap_f32, Steady, shrink_gap<float>)
KERNEL(steady_weigh, Steady, weigh)
KERNEL(steady_blend_f16, Steady, blend<Half>)
KERNEL(steady_blend_f32, Steady, blend<float>)
