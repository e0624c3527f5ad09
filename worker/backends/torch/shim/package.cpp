// Packages that AOTInductor compiled: a shared library with the model's code and constants, run by libtorch's own runner.
//
// Not by `AOTIModelPackageLoader`, which unpacks before anything is checked, into a folder that it leaves behind where loading
// fails: the caller unpacks, and the library behind that loader is used as it does.

#include <dlfcn.h>

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>

#include "hearing.h"
#include "shim.h"

namespace {

struct Package {
  std::unique_ptr<torch::inductor::AOTIModelContainerRunner> runner;
  // The CUDA device, or -1.
  int cuda = -1;
};

// How often a CUDA device had no memory for libtorch.
int64_t out_of_memory(int cuda) {
  if (cuda < 0) {
    return 0;
  }
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(c10::kCUDA);
  return allocator->initialized() ? allocator->getDeviceStats(static_cast<c10::DeviceIndex>(cuda)).num_ooms : 0;
}

// Runs what calls into a package's library, and says what that said if it fails.
template <typename Run>
auto telling(int cuda, Run run) {
  const int64_t before = out_of_memory(cuda);
  const mesh::Hearing hearing;
  try {
    return run();
  } catch (const std::exception& error) {
    const std::string reason = hearing.reason(error.what());
    if (out_of_memory(cuda) > before) {
      throw mesh::MemoryError(reason);
    }
    throw std::runtime_error(reason);
  }
}

// A package's library asks for libtorch.so, which a program that was linked with its parts alone has not opened. It is beside
// them, wherever these were found.
void open_libtorch() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&torch::inductor::getAOTIModelRunnerRegistry), &info) == 0 ||
      info.dli_fname == nullptr) {
    return;
  }
  const std::string part = info.dli_fname;
  const std::string folder = part.substr(0, part.rfind('/') + 1);
  // Never closed. Where it cannot be opened, the library that wants it says so.
  dlopen((folder + "libtorch.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
}

}  // namespace

extern "C" {

// Opens a package's library with what was unpacked beside it, for the CPU (-1) or a CUDA device; `weights` is a file of
// constants, or empty where they are in the library. Null if that fails.
Package* mesh_torch_package_load(const char* library, const char* folder, const char* weights, int cuda) noexcept {
  return mesh::guarded<Package*>(nullptr, [&] {
    static const bool opened = (open_libtorch(), true);
    (void)opened;
    const std::string kind = cuda < 0 ? "cpu" : "cuda";
    const auto& registry = torch::inductor::getAOTIModelRunnerRegistry();
    const auto found = registry.find(kind);
    TORCH_CHECK(found != registry.end(), "this libtorch runs no packages on ", kind);
    const std::string device = cuda < 0 ? kind : kind + ":" + std::to_string(cuda);
    auto package = std::make_unique<Package>();
    package->cuda = cuda;
    telling(cuda, [&] {
      // One call at a time: a package lives on one thread.
      package->runner = found->second(library, 1, device, folder, true);
      if (*weights != '\0') {
        package->runner->update_constant_buffer_from_blob(weights);
      }
    });
    return package.release();
  });
}

void mesh_torch_package_free(Package* package) noexcept { delete package; }

// Calls the package with tensors in the order that it was compiled for; writes new tensors into the first places of
// `outputs`. The number of results, or -1 if the call failed or has more results than there are places.
int64_t mesh_torch_package_call(
    const Package* package,
    const at::Tensor* const* inputs,
    size_t input_count,
    at::Tensor** outputs,
    size_t output_count) noexcept {
  return mesh::guarded<int64_t>(-1, [&] {
    std::vector<at::Tensor> arguments;
    arguments.reserve(input_count);
    for (size_t index = 0; index < input_count; ++index) {
      arguments.push_back(*inputs[index]);
    }
    std::vector<at::Tensor> results =
        telling(package->cuda, [&] { return package->runner->boxed_run(std::move(arguments)); });
    TORCH_CHECK(results.size() <= output_count, "the package returned ", results.size(), " tensors, not ", output_count);
    std::vector<std::unique_ptr<at::Tensor>> made;
    made.reserve(results.size());
    for (at::Tensor& result : results) {
      made.push_back(std::make_unique<at::Tensor>(std::move(result)));
    }
    for (size_t index = 0; index < made.size(); ++index) {
      outputs[index] = made[index].release();
    }
    return static_cast<int64_t>(made.size());
  });
}
}
