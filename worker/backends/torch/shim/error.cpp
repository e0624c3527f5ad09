// The last exception of each thread, in words.

#include "shim.h"

#include <exception>
#include <new>

#include <c10/util/Exception.h>

namespace {

// What an exception can be about beside an output, whose numbers are from 0 on.
constexpr int kAll = -1;
constexpr int kMemory = -2;

struct Noted {
  std::string text;
  int about = kAll;
};

Noted& noted() noexcept {
  thread_local Noted noted;
  return noted;
}

}  // namespace

void mesh::note_exception() noexcept {
  Noted& last = noted();
  last.about = kAll;
  try {
    try {
      throw;
    } catch (const OutputError& error) {
      last.text = error.what();
      last.about = error.output;
    } catch (const MemoryError& error) {
      last.text = error.what();
      last.about = kMemory;
    } catch (const c10::OutOfMemoryError& error) {
      last.text = error.what_without_backtrace();
      last.about = kMemory;
    } catch (const c10::Error& error) {
      last.text = error.what_without_backtrace();
    } catch (const std::bad_alloc& error) {
      last.text = error.what();
      last.about = kMemory;
    } catch (const std::exception& error) {
      last.text = error.what();
    } catch (...) {
      last.text = "unknown libtorch error";
    }
  } catch (...) {
    // No memory for the text: the one before stays, which is still an error's.
  }
}

extern "C" {

// What the thread's last call that failed has to say; until its next one.
const char* mesh_torch_error() noexcept { return noted().text.c_str(); }

// What it was about: an output whose result is not as expected, from 0 on; -1 for the call as a whole; -2 for memory.
int mesh_torch_error_about() noexcept { return noted().about; }
}
