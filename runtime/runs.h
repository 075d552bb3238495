// Runs of values in memory, moved in the widest accesses: 16 bytes, or 8 where that is all.
#pragma once

#include "kernels.h"

template <int num_words>
struct alignas(4 * num_words) Chunk {
    unsigned int word[num_words];
};

template <typename Chunk>
DEVICE float value_in(const Chunk& chunk, int index, Half) {
    return as_float(Half{(unsigned short)(chunk.word[index / 2] >> (index % 2 * 16))});
}
template <typename Chunk>
DEVICE float value_in(const Chunk& chunk, int index, float) { return from_word(chunk.word[index]); }
template <typename Chunk>
DEVICE int value_in(const Chunk& chunk, int index, unsigned char) {
    return chunk.word[index / 4] >> (index % 4 * 8) & 0xff;
}
template <typename Chunk>
DEVICE int value_in(const Chunk& chunk, int index, unsigned short) {
    return chunk.word[index / 2] >> (index % 2 * 16) & 0xffff;
}
template <typename Chunk>
DEVICE void put(Chunk& chunk, int index, float value, Half) {
    chunk.word[index / 2] |= (unsigned int)as_half(value).bits << (index % 2 * 16);
}
template <typename Chunk>
DEVICE void put(Chunk& chunk, int index, float value, float) { chunk.word[index] = as_word(value); }
template <typename Chunk>
DEVICE void put(Chunk& chunk, int index, int code, unsigned char) {
    chunk.word[index / 4] |= (unsigned int)code << (index % 4 * 8);
}
template <typename Chunk>
DEVICE void put(Chunk& chunk, int index, int code, unsigned short) {
    chunk.word[index / 2] |= (unsigned int)code << (index % 2 * 16);
}

// `count` values at an aligned address, in accesses of 16 bytes, or one of 8 when that is all.
template <int count, typename Value, typename Result>
DEVICE void load_run(const Value* source, Result (&result)[count]) {
    constexpr int num_words = count * sizeof(Value) < 16 ? 2 : 4, per_chunk = 4 * num_words / sizeof(Value);
    const Chunk<num_words>* chunks = reinterpret_cast<const Chunk<num_words>*>(source);
#pragma unroll
    for (int c = 0; c < count / per_chunk; ++c) {
        const Chunk<num_words> chunk = chunks[c];
#pragma unroll
        for (int i = 0; i < per_chunk; ++i) result[c * per_chunk + i] = value_in(chunk, i, Value{});
    }
}

template <int count, typename Value, typename Source>
DEVICE void store_run(Value* target, const Source (&values)[count]) {
    constexpr int num_words = count * sizeof(Value) < 16 ? 2 : 4, per_chunk = 4 * num_words / sizeof(Value);
    Chunk<num_words>* chunks = reinterpret_cast<Chunk<num_words>*>(target);
#pragma unroll
    for (int c = 0; c < count / per_chunk; ++c) {
        Chunk<num_words> chunk = {};
#pragma unroll
        for (int i = 0; i < per_chunk; ++i) put(chunk, i, values[c * per_chunk + i], Value{});
        chunks[c] = chunk;
    }
}
