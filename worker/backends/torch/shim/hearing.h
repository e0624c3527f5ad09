// What a package's library says when it fails.

#pragma once

#include <string>

namespace mesh {

// While it is there, what this thread writes to std::cerr is kept, besides being written.
class Hearing {
 public:
  Hearing();
  ~Hearing();
  Hearing(const Hearing&) = delete;
  Hearing& operator=(const Hearing&) = delete;

  // The reason among it: what libtorch said of its own failure first, then what the library did. Otherwise what is given.
  std::string reason(const char* otherwise) const;

 private:
  std::string heard_;
  std::string* before_;
};

}  // namespace mesh
