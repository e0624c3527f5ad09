// What a thread allocates and frees through libtorch, counted while somebody asks: libtorch's own allocators report to the
// thread's profiler, and this is one that only adds up. Its mathematics library (MKL, where libtorch has it) takes workspace past them,
// of megabytes for larger batches, by pointers that may be set before it is first used: what it takes on the thread is counted as well
// (where operations run on several threads, what the others take is not). And whether the host's allocator clears what it gives.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <c10/core/Allocator.h>
#include <c10/util/Flags.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

// Defined beside libtorch's allocator of the host, and declared in none of its headers.
C10_DECLARE_bool(caffe2_cpu_allocator_do_zero_fill);

namespace {

class Count final : public c10::MemoryReportingInfoBase {
 public:
  explicit Count(c10::DeviceType kind) : kind_(kind) {}

  void reportMemoryUsage(void* block, int64_t size, size_t, size_t, c10::Device device) override {
    if (device.type() != kind_) {
      return;
    }
    if (size > 0) {
      given(block, size);
    } else {
      freed(block);
    }
  }

  void given(void* block, int64_t size) {
    // Threads that libtorch starts for an operation report here as well.
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_[block] = size;
    held_ += size;
    peak_ = std::max(peak_, held_);
  }

  void freed(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Only what came while counting: the sizes of older blocks are not known for sure.
    if (const auto found = blocks_.find(block); found != blocks_.end()) {
      held_ -= found->second;
      blocks_.erase(found);
    }
  }

  bool memoryProfilingEnabled() const override { return true; }

  int64_t held() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

  int64_t peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }

 private:
  const c10::DeviceType kind_;
  std::mutex mutex_;
  std::unordered_map<void*, int64_t> blocks_;
  int64_t held_ = 0;
  int64_t peak_ = 0;
};

// What counts the host's memory of the calling thread, if anything does.
thread_local Count* counting = nullptr;

struct Meter {
  explicit Meter(c10::DeviceType kind)
      : count(std::make_shared<Count>(kind)), guard(c10::DebugInfoKind::PROFILER_STATE, count), before(counting) {
    counting = kind == c10::kCPU ? count.get() : nullptr;
  }
  ~Meter() { counting = before; }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  std::shared_ptr<Count> count;
  c10::DebugInfoGuard guard;
  // Meters of one thread end in the opposite order of their beginning.
  Count* before;
};

void note(void* block, size_t size) noexcept {
  try {
    if (counting != nullptr && block != nullptr) {
      counting->given(block, static_cast<int64_t>(size));
    }
  } catch (...) {
  }
}

void note_freed(void* block) noexcept {
  try {
    if (counting != nullptr && block != nullptr) {
      counting->freed(block);
    }
  } catch (...) {
  }
}

// What the mathematics library allocates by, as it was, and what frees what it keeps. Written once, before it is used.
struct Workspace {
  void* (*malloc)(size_t) = nullptr;
  void* (*calloc)(size_t, size_t) = nullptr;
  void* (*realloc)(void*, size_t) = nullptr;
  void (*free)(void*) = nullptr;
  // Frees what is kept for later calls: of the calling thread, and of all.
  void (*release_own)() = nullptr;
  void (*release_all)() = nullptr;
};

Workspace workspace;

void* counted_malloc(size_t size) {
  void* block = workspace.malloc(size);
  note(block, size);
  return block;
}

void* counted_calloc(size_t count, size_t size) {
  void* block = workspace.calloc(count, size);
  note(block, count * size);
  return block;
}

void* counted_realloc(void* block, size_t size) {
  void* moved = workspace.realloc(block, size);
  if (moved != nullptr) {
    note_freed(block);
    note(moved, size);
  }
  return moved;
}

void counted_free(void* block) {
  note_freed(block);
  workspace.free(block);
}

template <typename Kind>
Kind* found(const char* name) {
#if defined(__unix__) || defined(__APPLE__)
  return reinterpret_cast<Kind*>(dlsym(RTLD_DEFAULT, name));
#else
  return nullptr;
#endif
}

// Puts ours in the place of one of its pointers; false where it has none.
template <typename Call>
bool replace(const char* name, Call& was, Call ours) {
  Call* pointer = found<Call>(name);
  if (pointer == nullptr || *pointer == nullptr) {
    return false;
  }
  was = *pointer;
  *pointer = ours;
  return true;
}

}  // namespace

extern "C" {

// Has the workspace of the mathematics library counted from now on. To be called once, before any operation runs.
void mesh_torch_watch_workspace() noexcept {
  workspace.release_own = found<void()>("mkl_serv_thread_free_buffers");
  workspace.release_all = found<void()>("mkl_serv_free_buffers");
  // Freed in ours only once it is known where to.
  if (replace("i_free", workspace.free, counted_free) && replace("i_malloc", workspace.malloc, counted_malloc)) {
    replace("i_calloc", workspace.calloc, counted_calloc);
    replace("i_realloc", workspace.realloc, counted_realloc);
  }
}

// Frees what the mathematics library keeps of workspace for later calls on the calling thread, or on all: what nobody uses now, beside
// calls on other threads.
void mesh_torch_release_workspace(bool all) noexcept {
  const auto release = all ? workspace.release_all : workspace.release_own;
  if (release != nullptr) {
    release();
  }
}

// Begins to count what the calling thread allocates on the CPU, or on CUDA devices, until the meter ends on the same thread.
// Null if it cannot begin.
Meter* mesh_torch_meter_begin(bool cuda) noexcept {
  try {
    return new Meter(cuda ? c10::kCUDA : c10::kCPU);
  } catch (...) {
    return nullptr;
  }
}

// Bytes allocated since the beginning and not freed.
int64_t mesh_torch_meter_held(const Meter* meter) noexcept {
  try {
    return meter->count->held();
  } catch (...) {
    return 0;
  }
}

// The most bytes that were held at once since the beginning.
int64_t mesh_torch_meter_peak(const Meter* meter) noexcept {
  try {
    return meter->count->peak();
  } catch (...) {
    return 0;
  }
}

void mesh_torch_meter_end(Meter* meter) noexcept { delete meter; }

// From now on every tensor's memory on the host is zeros when it is given, for the whole process. To be called before other threads
// allocate: libtorch reads it without a lock.
void mesh_torch_clear_memory() noexcept { FLAGS_caffe2_cpu_allocator_do_zero_fill = true; }
}
