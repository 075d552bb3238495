// The part of NVIDIA's video decoder (libnvcuvid) that FFmpeg's hwaccel calls, on the memory of cpu_driver.cpp. It
// cannot decode: a picture is looked up, by the place in the order of display that FFmpeg has parsed for it, in the file that
// CPU_NVDEC_PICTURES names (int32 width, height and bytes of a sample, then the pictures as NV12 or P010). What it does
// like the real one is everything around that: few surfaces, mapped one at a time and overwritten afterwards, at a pitch
// and with the height of whole macroblocks, only with a context and within the limits FFmpeg asked for.
// Layouts: NVIDIA Video Codec SDK, cuviddec.h.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

typedef int Result;
typedef unsigned long long Address;
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_SUPPORTED = 801 };
enum { H264 = 4, HEVC = 8 };

extern "C" {
Result cuCtxSynchronize();
Result cuMemAlloc_v2(Address*, size_t);
Result cuMemFree_v2(Address);
}

struct Caps {  // CUVIDDECODECAPS
    int codec, chroma;
    unsigned bit_depth_minus_8, reserved_1[3];
    unsigned char is_supported, reserved_2[3];
    unsigned max_width, max_height, max_macroblocks;
    unsigned short min_width, min_height;
};

struct CreateInfo {  // CUVIDDECODECREATEINFO
    unsigned long width, height, num_decode_surfaces;
    int codec, chroma;
    unsigned long flags, bit_depth_minus_8, intra_only, max_width, max_height, reserved;
    short display_area[4];
    int output_format, deinterlace_mode;
    unsigned long target_width, target_height, num_output_surfaces;
};

struct PictureParams {  // CUVIDPICPARAMS
    int width_in_macroblocks, height_in_macroblocks, surface, is_field, is_bottom_field, is_second_field;
    unsigned num_bytes;
    const unsigned char* bytes;
    unsigned num_slices;
    const unsigned* slice_offsets;
    int is_reference, is_intra;
    unsigned reserved[30];
    union {
        struct {
            int of_sequence_and_picture[24], field_order_counts[2];
        } h264;
        struct {
            int of_sequence_and_picture[62], order_count;
        } hevc;
    };
};

struct Decoder {
    CreateInfo info;
    std::map<int, int> shown_at;          // number of the picture in the order of display, by surface
    std::map<Address, size_t> mapped;
    int num_decoded = 0, num_before_idr = 0;
};

struct Pictures {
    int width = 0, height = 0, sample_bytes = 0;
    std::vector<unsigned char> data;
};

static Pictures pictures_now() {
    Pictures pictures;
    const char* path = std::getenv("CPU_NVDEC_PICTURES");
    FILE* file = path ? std::fopen(path, "rb") : nullptr;
    if (!file) return pictures;
    int32_t head[3];
    if (std::fread(head, sizeof head, 1, file) == 1) {
        pictures.width = head[0], pictures.height = head[1], pictures.sample_bytes = head[2];
        unsigned char block[65536];
        for (size_t size; (size = std::fread(block, 1, sizeof block, file)) > 0;) {
            pictures.data.insert(pictures.data.end(), block, block + size);
        }
    }
    std::fclose(file);
    return pictures;
}

extern "C" {
Result cuvidGetDecoderCaps(Caps* caps) {
    caps->is_supported = (caps->codec == H264 || caps->codec == HEVC) && caps->chroma == 1 &&
                         caps->bit_depth_minus_8 <= (caps->codec == HEVC ? 2 : 0);
    caps->max_width = caps->max_height = 4096;
    caps->max_macroblocks = 65536;
    caps->min_width = caps->min_height = 48;
    return cuCtxSynchronize();
}
Result cuvidCreateDecoder(Decoder** decoder, const CreateInfo* info) {
    // More surfaces than 32 are refused by the real one; one output surface is what FFmpeg's copying way needs.
    if (info->num_decode_surfaces < 1 || info->num_decode_surfaces > 32 || info->num_output_surfaces < 1) return INVALID_VALUE;
    return *decoder = new Decoder{*info}, cuCtxSynchronize();
}
Result cuvidDestroyDecoder(Decoder* decoder) {
    const bool is_mapped = !decoder->mapped.empty();
    return delete decoder, is_mapped ? INVALID_VALUE : cuCtxSynchronize();
}
Result cuvidDecodePicture(Decoder* decoder, const PictureParams* picture) {
    if (picture->surface < 0 || picture->surface >= int(decoder->info.num_decode_surfaces)) return INVALID_VALUE;
    if (!picture->num_bytes || !picture->num_slices || picture->is_field) return INVALID_VALUE;
    // FFmpeg counts fields of H.264 from 65536 on, pictures of HEVC from 0.
    const bool is_h264 = decoder->info.codec == H264;
    const int order = is_h264 ? (picture->h264.field_order_counts[0] & 0xFFFF) / 2 : picture->hevc.order_count;
    if (order == 0) decoder->num_before_idr = decoder->num_decoded;
    decoder->shown_at[picture->surface] = decoder->num_before_idr + order;
    return ++decoder->num_decoded, cuCtxSynchronize();
}
Result cuvidMapVideoFrame64(Decoder* decoder, int surface, Address* address, unsigned* pitch, void*) {
    const CreateInfo& info = decoder->info;
    if (decoder->mapped.size() >= info.num_output_surfaces || !decoder->shown_at.count(surface)) return INVALID_VALUE;
    const Pictures pictures = pictures_now();
    const size_t row = size_t(pictures.width + 1) / 2 * 2 * pictures.sample_bytes;
    const size_t chroma_rows = (pictures.height + 1) / 2, number = decoder->shown_at[surface];
    const size_t picture_bytes = row * (pictures.height + chroma_rows);
    const int sample_bytes = info.output_format == 0 ? 1 : 2;
    if (sample_bytes != pictures.sample_bytes || (number + 1) * picture_bytes > pictures.data.size()) return INVALID_VALUE;
    *pitch = unsigned((info.target_width * sample_bytes + 511) / 512 * 512);
    const size_t size = *pitch * info.target_height * 3 / 2;
    if (Result refusal = cuMemAlloc_v2(address, size)) return refusal;
    unsigned char* target = (unsigned char*)*address;  // what lies outside of the picture stays as it was allocated
    const unsigned char* source = pictures.data.data() + number * picture_bytes;
    for (size_t y = 0; y < pictures.height + chroma_rows; ++y) {
        const size_t line = y < size_t(pictures.height) ? y : info.target_height + y - pictures.height;
        std::memcpy(target + line * *pitch, source + y * row, row);
    }
    decoder->mapped[*address] = size;
    return SUCCESS;
}
Result cuvidUnmapVideoFrame64(Decoder* decoder, Address address) {
    if (!decoder->mapped.count(address)) return INVALID_VALUE;
    std::memset((void*)address, 0x5A, decoder->mapped[address]);
    decoder->mapped.erase(address);
    return cuMemFree_v2(address);
}

// Of no use to FFmpeg's hwaccel, which takes no library that lacks them.
#define NOT_OFFERED(name) \
    Result name() { return NOT_SUPPORTED; }
NOT_OFFERED(cuvidGetDecodeStatus)
NOT_OFFERED(cuvidReconfigureDecoder)
NOT_OFFERED(cuvidCtxLockCreate)
NOT_OFFERED(cuvidCtxLockDestroy)
NOT_OFFERED(cuvidCtxLock)
NOT_OFFERED(cuvidCtxUnlock)
NOT_OFFERED(cuvidCreateVideoSource)
NOT_OFFERED(cuvidCreateVideoSourceW)
NOT_OFFERED(cuvidDestroyVideoSource)
NOT_OFFERED(cuvidSetVideoSourceState)
NOT_OFFERED(cuvidGetVideoSourceState)
NOT_OFFERED(cuvidGetSourceVideoFormat)
NOT_OFFERED(cuvidGetSourceAudioFormat)
NOT_OFFERED(cuvidCreateVideoParser)
NOT_OFFERED(cuvidParseVideoData)
NOT_OFFERED(cuvidDestroyVideoParser)
}
