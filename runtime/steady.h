// What the kernels of steadying take: see steady_motion.cu, whose kernels come first, and steady.cu.
//
// `runtime/device_steady.py` fills `Steady`; its NumPy type and this struct must agree field by field. The constants are
// those of `runtime/steady_constants.py`.
//
// Three grids lie over a picture: its pixels, those of a guide (the source made small) and cells, squares of
// the guide's.
#pragma once

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

template <typename Value>
DEVICE Value* channel(unsigned long long planes, const Steady& pass, int index) {
    return reinterpret_cast<Value*>(planes) + (unsigned long long)index * pass.padded_height * pass.padded_width;
}

DEVICE bool is_moving(const Steady& pass, int x, int y) {
    return reinterpret_cast<const unsigned char*>(pass.mask)[y * pass.columns + x];
}
