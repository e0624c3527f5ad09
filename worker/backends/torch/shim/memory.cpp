// What a thread allocates and frees through libtorch, counted while somebody asks: libtorch's own allocators report to the
// thread's profiler, and this is one that only adds up. And whether the host's allocator clears what it gives.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <c10/core/Allocator.h>
#include <c10/util/Flags.h>
#include <c10/util/ThreadLocalDebugInfo.h>

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
    // Threads that libtorch starts for an operation report here as well.
    const std::lock_guard<std::mutex> lock(mutex_);
    if (size > 0) {
      blocks_[block] = size;
      held_ += size;
      peak_ = std::max(peak_, held_);
    } else if (const auto found = blocks_.find(block); found != blocks_.end()) {
      // Only what came while counting: the sizes of older blocks are not known for sure.
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

struct Meter {
  explicit Meter(c10::DeviceType kind)
      : count(std::make_shared<Count>(kind)), guard(c10::DebugInfoKind::PROFILER_STATE, count) {}

  std::shared_ptr<Count> count;
  c10::DebugInfoGuard guard;
};

}  // namespace

extern "C" {

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
