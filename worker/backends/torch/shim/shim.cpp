// What the bindings lack of libtorch, in C's words. Nothing here throws: an exception is an answer of its own.

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/COW.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstddef>
#include <cstring>
#include <exception>

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

// Reads a TorchScript file, folds its parameters into its code as constants, and writes it to another. False if that is
// not possible; the reason is then in `problem`, cut to its size and ended by a zero.
bool mesh_torch_freeze(const char* from, const char* to, char* problem, size_t size) noexcept {
  const char* text = "unknown error";
  try {
    torch::jit::Module module = torch::jit::load(from, c10::Device(c10::kCPU));
    module.eval();
    torch::jit::freeze(module).save(to);
    return true;
  } catch (const std::exception& error) {
    text = error.what();
    if (size > 0) {
      std::strncpy(problem, text, size - 1);
      problem[size - 1] = 0;
    }
  } catch (...) {
    if (size > 0) {
      std::strncpy(problem, text, size - 1);
      problem[size - 1] = 0;
    }
  }
  return false;
}
}
