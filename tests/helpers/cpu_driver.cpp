// The part of the CUDA driver that runtime/cuda.py reaches through PyCUDA, on the CPU: memory is the host's, a stream
// runs at once, a graph is a list of calls, the kernels are compiled for the host. Everything that a stream
// gets without a current context, or from memory that was freed, is an error as it is on a GPU. With DRIVER_FAILS_AFTER=N
// the Nth kernel does what ends a context on a GPU: nearly every later call returns the same error.

#include <dlfcn.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "kernels.cu"

typedef int Result;
typedef unsigned long long Address;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    PRIMARY_CONTEXT_ACTIVE = 708
};

struct Stream {
    bool is_recording = false;
    std::vector<std::function<Result()>> recorded;
};
typedef std::vector<std::function<Result()>> Graph;

struct Event {
    bool has_time;
    std::chrono::steady_clock::time_point reached;
};

static thread_local std::vector<void*> contexts;
static std::map<Address, size_t> allocations;
static std::mutex lock;
static Stream default_stream;
static const size_t CAPACITY = size_t(8) << 30;
static size_t used = 0;
static int the_context, num_retained = 0, num_launched = 0;
static const char* fails_after = std::getenv("DRIVER_FAILS_AFTER");
static unsigned context_flags = 0;

// SUCCESS, or the error that ended the context.
static Result state() { return fails_after && num_launched >= std::atoi(fails_after) ? ILLEGAL_ADDRESS : SUCCESS; }

struct Copy2D {  // CUDA_MEMCPY2D; types: 1 host, 2 device
    size_t source_x, source_y;
    unsigned source_type;
    const char* source_host;
    Address source;
    void* source_array;
    size_t source_pitch;
    size_t target_x, target_y;
    unsigned target_type;
    char* target_host;
    Address target;
    void* target_array;
    size_t target_pitch, width, height;
};

static bool holds(Address address, size_t size) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    --after;
    return address + size <= after->first + after->second;
}

static bool holds_pictures(const Pass& pass) {
    const size_t values = 3ull * pass.padded_height * pass.padded_width * 2;
    return holds(pass.rgb, values) && holds(pass.styled, values) && holds(pass.surface.y, 1);
}

static bool holds_pictures(const Steady& pass) {
    const size_t values = 3ull * pass.padded_height * pass.padded_width * 2;
    return holds(pass.source, values) && holds(pass.painted, values) && holds(pass.history, values) && holds(pass.flags, 8);
}

static Result queue(Stream* stream, std::function<Result()> work) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (state()) return state();
    stream = stream ? stream : &default_stream;
    if (!stream->is_recording) return work();
    stream->recorded.push_back(work);
    return SUCCESS;
}

// The kernel of a structure passed by value.
template <typename Argument>
static Result launch(void* function, const void* bytes, int num_columns, int num_rows, Stream* stream) {
    Argument argument;
    std::memcpy(&argument, bytes, sizeof argument);
    return queue(stream, [=] {
        if (!holds_pictures(argument)) return INVALID_VALUE;
        ++num_launched;
        ((void (*)(const Argument*, int, int))function)(&argument, num_columns, num_rows);
        return SUCCESS;
    });
}

extern "C" {
Result cuInit(unsigned) { return SUCCESS; }
Result cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
Result cuGetErrorString(int result, const char** text) {
    return *text = result == ILLEGAL_ADDRESS ? "an illegal memory access" : "an error of the driver on the CPU", SUCCESS;
}
Result cuGetErrorName(int result, const char** text) {
    *text = "CUDA_ERROR_ON_THE_CPU";
    if (result == INVALID_CONTEXT) *text = "CUDA_ERROR_INVALID_CONTEXT";
    if (result == ILLEGAL_ADDRESS) *text = "CUDA_ERROR_ILLEGAL_ADDRESS";
    return SUCCESS;
}
Result cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
Result cuDeviceGet(int* device, int index) { return *device = index, index ? INVALID_VALUE : SUCCESS; }
Result cuDeviceGetName(char* name, int length, int) { return std::strncpy(name, "CPU", length), SUCCESS; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    return *value = attribute == 75 ? 9 : attribute == 14 ? 512 : 0, SUCCESS;  // 9.0; alignment of textures
}
Result cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = CAPACITY, SUCCESS; }
Result cuDevicePrimaryCtxRetain(void** context, int) { return *context = &the_context, ++num_retained, SUCCESS; }
Result cuDevicePrimaryCtxRelease(int) { return num_retained-- > 0 ? SUCCESS : INVALID_CONTEXT; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return cuDevicePrimaryCtxRelease(device); }
Result cuDevicePrimaryCtxGetState(int, unsigned* flags, int* is_active) {
    return *flags = context_flags, *is_active = num_retained > 0, SUCCESS;
}
Result cuDevicePrimaryCtxSetFlags(int, unsigned flags) {  // as before CUDA 11, the one FFmpeg calls
    if (num_retained > 0) return PRIMARY_CONTEXT_ACTIVE;
    return context_flags = flags, SUCCESS;
}
Result cuDevicePrimaryCtxSetFlags_v2(int, unsigned flags) { return context_flags = flags, SUCCESS; }
Result cuCtxPushCurrent_v2(void* context) { return contexts.push_back(context), SUCCESS; }
Result cuCtxPopCurrent_v2(void** context) {
    if (contexts.empty()) return INVALID_CONTEXT;
    *context = contexts.back();
    contexts.pop_back();
    return SUCCESS;
}
Result cuCtxSynchronize() { return contexts.empty() ? INVALID_CONTEXT : state(); }
Result cuMemGetInfo_v2(size_t* available, size_t* total) {
    return *available = CAPACITY - used, *total = CAPACITY, contexts.empty() ? INVALID_CONTEXT : state();
}
Result cuMemAlloc_v2(Address* address, size_t size) {
    if (contexts.empty() || state()) return contexts.empty() ? INVALID_CONTEXT : state();
    std::lock_guard<std::mutex> guard(lock);
    if (used + size > CAPACITY) return OUT_OF_MEMORY;
    *address = Address(std::aligned_alloc(256, (size + 255) / 256 * 256));
    allocations[*address] = size;
    used += size;
    std::memset((void*)*address, 0xA5, size);
    return SUCCESS;
}
Result cuMemFree_v2(Address address) {
    if (state()) return state();
    std::lock_guard<std::mutex> guard(lock);
    if (!allocations.count(address)) return INVALID_VALUE;
    used -= allocations[address];
    allocations.erase(address);
    std::free((void*)address);
    return SUCCESS;
}
Result cuMemHostAlloc(void** address, size_t size, unsigned) {
    if (contexts.empty()) return INVALID_CONTEXT;
    return *address = std::aligned_alloc(256, (size + 255) / 256 * 256), SUCCESS;
}
Result cuMemFreeHost(void* address) { return state() ? state() : (std::free(address), SUCCESS); }
Result cuMemcpyHtoDAsync_v2(Address target, const void* source, size_t size, Stream* stream) {
    return queue(stream, [=] {
        return holds(target, size) ? (std::memcpy((void*)target, source, size), SUCCESS) : INVALID_VALUE;
    });
}
Result cuMemcpyDtoHAsync_v2(void* target, Address source, size_t size, Stream* stream) {
    return queue(stream, [=] {
        return holds(source, size) ? (std::memcpy(target, (void*)source, size), SUCCESS) : INVALID_VALUE;
    });
}
Result cuMemcpy2DAsync_v2(const Copy2D* copy, Stream* stream) {
    const Copy2D c = *copy;
    return queue(stream, [=] {
        const size_t source_size = c.source_pitch * (c.height - 1) + c.width;
        const size_t target_size = c.target_pitch * (c.height - 1) + c.width;
        if (c.source_type == 2 && !holds(c.source, source_size)) return INVALID_VALUE;
        if (c.target_type == 2 && !holds(c.target, target_size)) return INVALID_VALUE;
        const char* source = c.source_type == 2 ? (const char*)c.source : c.source_host;
        char* target = c.target_type == 2 ? (char*)c.target : c.target_host;
        for (size_t y = 0; y < c.height; ++y) {
            std::memcpy(target + y * c.target_pitch, source + y * c.source_pitch, c.width);
        }
        return SUCCESS;
    });
}
Result cuMemcpyDtoDAsync_v2(Address target, Address source, size_t size, Stream* stream) {
    return queue(stream, [=] {
        if (!holds(source, size) || !holds(target, size)) return INVALID_VALUE;
        return std::memcpy((void*)target, (void*)source, size), SUCCESS;
    });
}
Result cuStreamCreate(Stream** stream, unsigned flags) {
    if (contexts.empty() || flags > 1) return INVALID_CONTEXT;
    return *stream = new Stream, SUCCESS;
}
Result cuStreamDestroy_v2(Stream* stream) { return state() ? state() : (delete stream, SUCCESS); }
Result cuStreamSynchronize(Stream* stream) { return stream && stream->is_recording ? INVALID_HANDLE : state(); }
Result cuStreamWaitEvent(Stream*, void*, unsigned) { return contexts.empty() ? INVALID_CONTEXT : state(); }
Result cuEventCreate(Event** event, unsigned flags) {
    return *event = new Event{!(flags & 2)}, contexts.empty() ? INVALID_CONTEXT : SUCCESS;
}
Result cuEventDestroy_v2(Event* event) { return state() ? state() : (delete event, SUCCESS); }
Result cuEventRecord(Event* event, Stream* stream) {
    return queue(stream, [=] { return event->reached = std::chrono::steady_clock::now(), SUCCESS; });
}
Result cuEventSynchronize(Event*) { return contexts.empty() ? INVALID_CONTEXT : state(); }
Result cuEventElapsedTime_v2(float* ms, Event* first, Event* last) {
    if (!first->has_time || !last->has_time) return INVALID_HANDLE;
    return *ms = std::chrono::duration<float, std::milli>(last->reached - first->reached).count(), SUCCESS;
}
Result cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    static const char beginning[] = "// kernels ";
    const size_t length = std::strlen((const char*)image);  // PTX ends with a zero
    *module = &the_context;
    return length > 100000 && !std::memcmp(image, beginning, sizeof beginning - 1) ? SUCCESS : INVALID_VALUE;
}
Result cuModuleUnload(void*) { return state(); }
Result cuModuleGetFunction(void** function, void*, const char* name) {
    *function = dlsym(RTLD_DEFAULT, name);
    if (!*function) {
        Dl_info self;
        dladdr((void*)cuInit, &self);
        *function = dlsym(dlopen(self.dli_fname, RTLD_LAZY), name);
    }
    return *function ? SUCCESS : NOT_FOUND;
}
Result cuFuncSetBlockShape(void*, int x, int y, int z) { return x * y * z == 128 ? SUCCESS : INVALID_VALUE; }
Result cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned, unsigned bx, unsigned by, unsigned, unsigned,
                      Stream* stream, void**, void** extra) {
    // CU_LAUNCH_PARAM_BUFFER_POINTER is 1, CU_LAUNCH_PARAM_BUFFER_SIZE 2
    if (extra[0] != (void*)1 || extra[2] != (void*)2) return INVALID_VALUE;
    const int num_columns = gx * bx, num_rows = gy * by;
    switch (*(size_t*)extra[3]) {
        case sizeof(Pass): return launch<Pass>(function, extra[1], num_columns, num_rows, stream);
        case sizeof(Steady): return launch<Steady>(function, extra[1], num_columns, num_rows, stream);
        default: return INVALID_VALUE;
    }
}
Result cuStreamBeginCapture_v2(Stream* stream, int mode) {
    if (mode != 1 || !stream || stream->is_recording) return INVALID_VALUE;
    return stream->is_recording = true, SUCCESS;
}
Result cuStreamEndCapture(Stream* stream, Graph** graph) {
    if (!stream->is_recording) return INVALID_VALUE;
    *graph = new Graph(stream->recorded);
    stream->recorded.clear();
    return stream->is_recording = false, SUCCESS;
}
Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long flags) {
    return *executable = new Graph(*graph), flags ? INVALID_VALUE : SUCCESS;
}
Result cuGraphLaunch(Graph* graph, Stream* stream) {
    for (auto& work : *graph) {
        const Result result = queue(stream, work);
        if (result) return result;
    }
    return SUCCESS;
}
Result cuGraphDestroy(Graph* graph) { return delete graph, SUCCESS; }
Result cuGraphExecDestroy(Graph* graph) { return delete graph, SUCCESS; }
}
