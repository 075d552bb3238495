// What moves in the source, and where it was: the first half of steadying, `runtime/steady_motion.py` on the GPU, with a
// motion search of its own.
//
// Plain C++ for two compilers, see kernels.h. The kernels are queued in the order in which they stand here. A thread makes
// one value of what its kernel writes.

#include "steady.h"

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

KERNEL(steady_guide_f16, Steady, guide<Half>)
KERNEL(steady_guide_f32, Steady, guide<float>)
KERNEL(steady_halve, Steady, halve)
KERNEL(steady_products, Steady, products)
KERNEL(steady_step, Steady, step)
KERNEL(steady_expect, Steady, expect)
KERNEL(steady_compare, Steady, compare)
KERNEL(steady_move, Steady, move)
KERNEL(steady_spread, Steady, spread)
