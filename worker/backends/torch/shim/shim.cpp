// What the bindings lack of libtorch, in C's words. Nothing here throws: an exception is an answer of its own.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/COW.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

extern "C" {

// Whether nobody but the caller's one reference can reach the tensor's bytes: no other tensor, no view of the same
// storage, no lazy copy. Only for dense tensors on the CPU whose bytes lie one behind the other; false for all others.
bool mesh_torch_owns_alone(const at::Tensor* tensor) noexcept {
  try {
    if (!tensor->defined() || !tensor->device().is_cpu() || tensor->layout() != at::kStrided) {
      return false;
    }
    if (!tensor->is_contiguous() || tensor->is_conj() || tensor->is_neg() || !tensor->has_storage()) {
      return false;
    }
    const c10::Storage& storage = tensor->storage();
    return tensor->use_count() == 1 && storage.use_count() == 1 &&
           !c10::impl::cow::is_cow_data_ptr(storage.data_ptr());
  } catch (...) {
    return false;
  }
}

// Begins inference mode on the calling thread: tensors made in it keep no version counters and no views' history. Ends
// with the guard, on the same thread. Null if it cannot begin.
c10::InferenceMode* mesh_torch_inference_begin() noexcept {
  try {
    return new c10::InferenceMode(true);
  } catch (...) {
    return nullptr;
  }
}

void mesh_torch_inference_end(c10::InferenceMode* guard) noexcept { delete guard; }

// A tensor like this one in page-locked memory, from which a GPU copies without waiting. Null where there is none.
at::Tensor* mesh_torch_empty_pinned_like(const at::Tensor* tensor) noexcept {
  try {
    return new at::Tensor(at::empty_like(*tensor, tensor->options().pinned_memory(true)));
  } catch (...) {
    return nullptr;
  }
}

// A stream of its own on a CUDA device, out of libtorch's pool. Null without CUDA.
c10::Stream* mesh_torch_stream_new(int device) noexcept {
  try {
    const c10::Device on(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
    if (!c10::impl::hasDeviceGuardImpl(c10::kCUDA)) {
      return nullptr;
    }
    return new c10::Stream(c10::impl::getDeviceGuardImpl(c10::kCUDA)->getStreamFromGlobalPool(on));
  } catch (...) {
    return nullptr;
  }
}

void mesh_torch_stream_free(c10::Stream* stream) noexcept { delete stream; }

// Makes the stream, and its device, those of the calling thread, until the guard ends there. Null if that fails.
c10::StreamGuard* mesh_torch_stream_begin(const c10::Stream* stream) noexcept {
  try {
    return new c10::StreamGuard(*stream);
  } catch (...) {
    return nullptr;
  }
}

void mesh_torch_stream_end(c10::StreamGuard* guard) noexcept { delete guard; }
}
