// Both colour kernels over many sizes, pitches and addresses, each plane in memory that ends with its last sample: built
// with the compiler's sanitizers, it stops at the first access outside, or of 16 bytes where the address is none of 16.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "color.cu"

struct Memory {
    Memory(size_t size, size_t skew) {
        if (posix_memalign(&base, 256, size + skew)) std::abort();
        std::memset(base, 60, size + skew);
        address = (unsigned long long)base + skew;
    }
    Memory(const Memory&) = delete;
    ~Memory() { std::free(base); }
    void* base;
    unsigned long long address;
};

typedef void (*Kernel)(const Pass*, int num_columns, int num_rows);

struct Case {
    int width, height, padded_width, padded_height;
    int step, site;          // samples from one Cb to the next; 0 left, 1 centre, 2 top left
    size_t padding, skew;    // bytes behind each row, and from an aligned address to the first sample
    bool is_blended;
};

template <typename Sample, typename Value>
static void run(const Case& c, Kernel kernel, bool writes) {
    const int width = c.width + (writes && c.width % 2), height = c.height + (writes && c.height % 2);
    const int chroma_width = (width + 1) / 2 * c.step, chroma_height = (height + 1) / 2;
    const size_t luma_row = width * sizeof(Sample), luma_pitch = luma_row + c.padding;
    const size_t chroma_row = chroma_width * sizeof(Sample), chroma_pitch = chroma_row + c.padding;
    const size_t num_rgb = size_t(3) * c.padded_width * c.padded_height * sizeof(Value);
    const Memory luma(luma_pitch * (height - 1) + luma_row, c.skew), rgb(num_rgb, 0), styled(num_rgb, 0);
    const size_t num_chroma = chroma_pitch * (chroma_height - 1) + chroma_row;
    const Memory cb(num_chroma, c.skew), cr(num_chroma, c.skew);
    const Memory mask(size_t(c.width) * c.height * sizeof(float), 0), flag(sizeof(int), 0);
    Pass pass = {};
    pass.surface.y = luma.address, pass.surface.cb = cb.address;
    pass.surface.cr = c.step == 2 ? cb.address + sizeof(Sample) : cr.address;
    pass.surface.luma_pitch_bytes = luma_pitch, pass.surface.chroma_pitch_bytes = chroma_pitch;
    pass.surface.chroma_step = c.step, pass.surface.width = width, pass.surface.height = height;
    pass.surface.is_aligned = (luma.address | luma_pitch) % 16 == 0;
    if (c.step == 2 && (cb.address | chroma_pitch) % 16) pass.surface.is_aligned = 0;
    pass.surface.is_centered_x = c.site == 1, pass.surface.is_centered_y = c.site != 2;
    pass.rgb = rgb.address, pass.styled = styled.address, pass.not_a_number = flag.address;
    pass.mask = c.is_blended ? mask.address : 0, pass.strength = c.is_blended ? 0.5f : 1.0f;
    pass.width = c.width, pass.height = c.height;
    pass.padded_width = c.padded_width, pass.padded_height = c.padded_height;
    pass.is_rgb_aligned = c.padded_width * sizeof(Value) % 16 == 0;
    pass.white = 1.0f, pass.max_code = 255.0f, pass.y_green = 200.0f, pass.luma_scale = 0.004f;
    // All threads of whole blocks, as on a GPU.
    const int columns = writes ? (width + 7) / 8 : (c.padded_width * (int)sizeof(Sample) + 15) / 16;
    const int rows = writes ? (height + 1) / 2 : c.padded_height;
    kernel(&pass, (columns + 31) / 32 * 32, (rows + 3) / 4 * 4);
}

int main() {
    int num_cases = 0;
    for (int width : {1, 2, 7, 15, 16, 17, 33, 48}) {
        for (int height : {1, 2, 5}) {
            for (int index = 0; index < 3 * 2 * 4 * 3; ++index) {
                const int step = 1 + index / 3 % 2, to_aligned = (16 - width * step % 16) % 16;
                const size_t paddings[] = {0, 1, size_t(to_aligned), size_t(to_aligned) + 256};
                Case c = {width, height, (width + 7) / 8 * 8, (height + 7) / 8 * 8, step, index % 3,
                          paddings[index / 6 % 4], size_t(index / 24) * 8, num_cases++ % 2 == 0};
                run<unsigned char, Half>(c, rgb_from_yuv_u8_f16, false);
                run<unsigned char, Half>(c, yuv_from_rgb_u8_f16, true);
                c.padding *= 2;
                c.padded_width = width, c.padded_height = height;  // a network that takes any size
                run<unsigned short, float>(c, rgb_from_yuv_u16_f32, false);
                run<unsigned short, float>(c, yuv_from_rgb_u16_f32, true);
            }
        }
    }
    std::printf("%d\n", num_cases);
}
