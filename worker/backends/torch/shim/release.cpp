// Memory that no model uses any more, given back to the system; and how much of it a device has.

#include <cstdint>

#include <c10/core/CachingDeviceAllocator.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

extern "C" {

// Gives what the C library's allocator keeps in all its arenas back to the system.
void mesh_torch_trim() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// Gives what libtorch keeps of CUDA devices' memory back to the driver, if libtorch has taken any.
void mesh_torch_empty_cache() noexcept {
  try {
    c10::DeviceAllocator* allocator = c10::getDeviceAllocator(c10::kCUDA);
    if (allocator->initialized()) {
      allocator->emptyCache();
    }
  } catch (...) {
  }
}

// All memory of a CUDA device in bytes; 0 where that cannot be told.
uint64_t mesh_torch_device_memory(int device) noexcept {
  try {
    const auto index = static_cast<c10::DeviceIndex>(device);
    return c10::getDeviceAllocator(c10::kCUDA)->getMemoryInfo(index).second;
  } catch (...) {
    return 0;
  }
}
}
