// How a thread asks for processors, beyond what has a number.

#ifdef __linux__
#include <sched.h>
#endif

extern "C" {

// The calling thread runs only where a processor would idle, for good: the system lets nobody without privileges take it back. A
// number (nice) would not do: whoever wakes up waits until the running thread's slice is over, whatever its number, and only this
// class is left at once.
bool mesh_torch_give_way() noexcept {
#ifdef __linux__
  const sched_param none{};
  return sched_setscheduler(0, SCHED_IDLE, &none) == 0;
#else
  return false;
#endif
}
}
