// What the parts of the shim share: how an exception becomes an answer.

#pragma once

#include <stdexcept>
#include <string>

namespace mesh {

// A result that is not what the configuration says; `output` is the place of the output that was looked for.
struct OutputError : std::runtime_error {
  OutputError(int output, const std::string& text) : std::runtime_error(text), output(output) {}
  int output;
};

// No memory, where the exception itself does not say so.
struct MemoryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Keeps what the exception says that is being handled, for `mesh_torch_error` on the same thread.
void note_exception() noexcept;

// Runs something that may throw; the other answer if it does.
template <typename Answer, typename Run>
Answer guarded(Answer otherwise, Run run) noexcept {
  try {
    return run();
  } catch (...) {
    note_exception();
    return otherwise;
  }
}

}  // namespace mesh
