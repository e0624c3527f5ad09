// The last exception of each thread, in words.

#include "shim.h"

#include <exception>

#include <c10/util/Exception.h>

namespace {

struct Noted {
  std::string text;
  int output = -1;
};

Noted& noted() noexcept {
  thread_local Noted noted;
  return noted;
}

}  // namespace

void mesh::note_exception() noexcept {
  Noted& last = noted();
  last.output = -1;
  try {
    try {
      throw;
    } catch (const OutputError& error) {
      last.text = error.what();
      last.output = error.output;
    } catch (const c10::Error& error) {
      last.text = error.what_without_backtrace();
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

// The output that it was about, if the model ran and its result was not as expected; -1 otherwise.
int mesh_torch_error_output() noexcept { return noted().output; }
}
