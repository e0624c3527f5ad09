// How long the calling thread runs at a time while others wait for its processor.

#include <cstdint>
#include <cstring>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// `struct sched_attr` of Linux in its first version; the C library has no name for it everywhere.
struct Attributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;
  uint64_t deadline;
  uint64_t period;
};

static_assert(sizeof(Attributes) == 48, "as the kernel has it");

// SCHED_OTHER and SCHED_BATCH: what else there is has no turns, or others.
bool has_turns(const Attributes& attributes) { return attributes.policy == 0 || attributes.policy == 3; }

bool read(Attributes& attributes) {
  std::memset(&attributes, 0, sizeof attributes);
#if defined(__linux__) && defined(SYS_sched_getattr)
  return syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) == 0;
#else
  return false;
#endif
}

}  // namespace

extern "C" {

// Asks for turns of so many nanoseconds for the calling thread, and leaves everything else of it as it is. Linux before 6.12 takes it
// and does as it did.
void mesh_torch_ask_for_turns(uint64_t nanoseconds) noexcept {
  Attributes attributes;
  if (!read(attributes) || !has_turns(attributes)) {
    return;
  }
  attributes.size = sizeof attributes;
  attributes.flags = 0;
  attributes.runtime = nanoseconds;
#if defined(__linux__) && defined(SYS_sched_setattr)
  (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}

// How long they are, in nanoseconds; 0 where the system does not tell.
uint64_t mesh_torch_turns() noexcept {
  Attributes attributes;
  return read(attributes) && has_turns(attributes) ? attributes.runtime : 0;
}
}
