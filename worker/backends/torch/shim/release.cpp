// Memory that no model uses any more, given back to the system; and how much of it a device has.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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

// Has the C library's allocator make no more arenas than these.
void mesh_torch_limit_arenas(int most) noexcept {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, most);
#endif
}

// Bytes that the C library's allocator has handed out and not got back; 0 where that cannot be told.
uint64_t mesh_torch_heap_in_use() noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

// How many arenas it has; 0 where that cannot be told.
uint64_t mesh_torch_arenas() noexcept {
  uint64_t arenas = 0;
#ifdef __GLIBC__
  char* text = nullptr;
  size_t length = 0;
  FILE* file = open_memstream(&text, &length);
  if (file == nullptr) {
    return 0;
  }
  const bool told = malloc_info(0, file) == 0;
  if (fclose(file) == 0 && told) {
    const char* heap = "<heap nr=";
    for (const char* at = std::strstr(text, heap); at != nullptr; at = std::strstr(at + 1, heap)) {
      arenas += 1;
    }
  }
  std::free(text);
#endif
  return arenas;
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
