// Values of grids that lie over the same picture, coarse and fine. Borders are those of OpenCV, which the CPU works with:
// filters mirror without the last value, samples repeat it.
#pragma once

#include "kernels.h"

DEVICE float* floats(unsigned long long address) { return reinterpret_cast<float*>(address); }

DEVICE float limited(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

// -2 -1 0 1 2 -> 2 1 0 1 2 and likewise at the end; to and fro where the reach is longer than the line.
DEVICE int reflected(int position, int size) {
    if (size == 1) return 0;
    while (position < 0 || position >= size) position = position < 0 ? -position : 2 * (size - 1) - position;
    return position;
}

// The part of a line of `size` that the place `index` of `count` stands for, in fractions of its values.
struct Span {
    float begin, end;
    int first, last;
    METHOD Span(int index, int size, int count)
        : begin(float(index) * size / count), end(float(index + 1) * size / count), first(int(begin)),
          last(at_most(int(end), size - 1)) {}
    METHOD float weight(int i) const {
        const float low = begin > i ? begin : i, high = end < i + 1 ? end : i + 1;
        return high > low ? (high - low) / (end - begin) : 0.0f;
    }
};

// The mean of `value(x, y)` over what the place (x, y) of a coarse grid stands for in a fine one.
template <typename Value>
DEVICE float area_mean(const Span& across, const Span& down, Value value) {
    float mean = 0.0f;
    for (int y = down.first; y <= down.last; ++y) {
        float row = 0.0f;
        for (int x = across.first; x <= across.last; ++x) row += across.weight(x) * value(x, y);
        mean += down.weight(y) * row;
    }
    return mean;
}

// The mean over a square around (x, y) of a (rows, columns) grid.
DEVICE float mean_around(const float* values, int x, int y, int columns, int rows, int side) {
    float sum = 0.0f;
    for (int j = y - side / 2; j <= y + side / 2; ++j) {
        const float* row = values + reflected(j, rows) * columns;
        for (int i = x - side / 2; i <= x + side / 2; ++i) sum += row[reflected(i, columns)];
    }
    return sum / (side * side);
}

// Four neighbours and their weights at a position between them.
struct Between {
    int left, right, top, bottom;
    float x, y;
    METHOD Between(float x_px, float y_px, int width, int height) {
        x_px = limited(x_px, 0.0f, width - 1.0f), y_px = limited(y_px, 0.0f, height - 1.0f);
        left = int(x_px), top = int(y_px);
        right = at_most(left + 1, width - 1), bottom = at_most(top + 1, height - 1);
        x = x_px - left, y = y_px - top;
    }
    METHOD float of(float upper_left, float upper_right, float lower_left, float lower_right) const {
        const float upper = upper_left + x * (upper_right - upper_left);
        const float lower = lower_left + x * (lower_right - lower_left);
        return upper + y * (lower - upper);
    }
    // Of a grid of `width`, every value at `stride` from the next.
    METHOD float in(const float* values, int width, int stride = 1) const {
        const float *upper = values + top * width * stride, *lower = values + bottom * width * stride;
        return of(upper[left * stride], upper[right * stride], lower[left * stride], lower[right * stride]);
    }
};

// A place of a grid of `width` x `height` in one of `columns` x `rows` over the same picture.
DEVICE Between between(int x, int y, int width, int height, int columns, int rows) {
    return Between((x + 0.5f) * columns / width - 0.5f, (y + 0.5f) * rows / height - 0.5f, columns, rows);
}
