// Clears memory of devices before a model gets it. For the host libtorch's own allocator does so (memory.cpp); those of devices do not,
// and cannot be told to.
//
// What a model's code can see of memory that nobody has written is what `empty` and `empty_strided` give (all others of their kind are
// made of these) and what `resize_` adds: whatever else an operation gives, it has written. So these three are wrapped where
// libtorch chooses a device for them, and what they give is overwritten with zeros by the device itself, in the order of its stream.

#include <atomic>
#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/empty_strided_ops.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_ops.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

namespace {

// A bit for each type of device whose memory is cleared. Read by every thread, without an order: one that allocates at this moment may
// still miss it.
std::atomic<uint64_t> cleared{0};

uint64_t bit(c10::DeviceType kind) { return uint64_t{1} << static_cast<int>(kind); }

bool is_cleared(const at::Tensor& tensor) {
  const uint64_t all = cleared.load(std::memory_order_relaxed);
  return all != 0 && (all & bit(tensor.device().type())) != 0 && tensor.layout() == c10::kStrided && tensor.has_storage();
}

// Zeros the bytes of a tensor's storage from here on, whatever its type is.
void zero_from(const at::Tensor& tensor, size_t from) {
  const size_t bytes = tensor.storage().nbytes();
  if (bytes > from) {
    char* begin = static_cast<char*>(tensor.storage().mutable_data()) + from;
    const auto options = at::TensorOptions().dtype(at::kByte).device(tensor.device());
    at::from_blob(begin, {static_cast<int64_t>(bytes - from)}, options).zero_();
  }
}

using Kind = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Device = std::optional<at::Device>;
using Format = std::optional<at::MemoryFormat>;

// As libtorch's own for this key, but for the zeros.
at::Tensor empty(c10::SymIntArrayRef size, Kind kind, Layout layout, Device device, std::optional<bool> pinned, Format format) {
  const c10::DispatchKeySet chosen(c10::computeDispatchKey(kind, layout, device));
  at::Tensor given = at::_ops::empty_memory_format::redispatch(chosen, size, kind, layout, device, pinned, format);
  if (is_cleared(given)) {
    zero_from(given, 0);
  }
  return given;
}

// As libtorch's own for this key, but for the zeros.
at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, Kind kind, Layout layout, Device device,
                         std::optional<bool> pinned) {
  const c10::DispatchKeySet chosen(c10::computeDispatchKey(kind, layout, device));
  at::Tensor given = at::_ops::empty_strided::redispatch(chosen, size, stride, kind, layout, device, pinned);
  if (is_cleared(given)) {
    zero_from(given, 0);
  }
  return given;
}

// Hands on to whoever comes next, and zeros what the storage has grown by.
const at::Tensor& resize(c10::DispatchKeySet keys, const at::Tensor& self, c10::SymIntArrayRef size, Format format) {
  const size_t before = self.has_storage() ? self.storage().nbytes() : 0;
  const c10::DispatchKeySet rest(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::BackendSelect);
  const at::Tensor& resized = at::_ops::resize_::redispatch(keys & rest, self, size, format);
  if (is_cleared(resized)) {
    zero_from(resized, before);
  }
  return resized;
}

// libtorch warns of what takes the place of its own.
class Quiet final : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override {}
};

}  // namespace

extern "C" {

// Wraps the operations. To be called before other threads run models: libtorch's tables are read without a lock. False if it cannot be.
bool mesh_torch_watch_devices() noexcept {
  try {
    Quiet quiet;
    const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::BackendSelect, __FILE__, __LINE__);
    static const bool done = [] {
      library.impl("empty.memory_format", TORCH_FN(empty));
      library.impl("empty_strided", TORCH_FN(empty_strided));
      library.impl("resize_", TORCH_FN(resize));
      return true;
    }();
    return done;
  } catch (...) {
    return false;
  }
}

// From now on memory of devices of this type is cleared before it is given, or no more; for the whole process.
void mesh_torch_clear_devices(bool cuda, bool clear) noexcept {
  const uint64_t kind = bit(cuda ? c10::kCUDA : c10::kCPU);
  if (clear) {
    cleared.fetch_or(kind, std::memory_order_relaxed);
  } else {
    cleared.fetch_and(~kind, std::memory_order_relaxed);
  }
}
}
