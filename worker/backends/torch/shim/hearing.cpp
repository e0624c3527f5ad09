// Hears what a package's library says of a failure. Between the library and its caller are only numbers: libtorch and the library
// turn their exceptions into one each, and write the words to std::cerr. So these are listened to there, by thread.

#include "hearing.h"

#include <algorithm>
#include <iostream>
#include <streambuf>

namespace mesh {
namespace {

// More than any first sentence has; the stack of frames behind it may be cut.
constexpr size_t kMostHeard = 16 * 1024;

std::string*& listener() noexcept {
  thread_local std::string* listener = nullptr;
  return listener;
}

// Hands everything on, and to the thread's listener as well. It keeps nothing itself, so that threads do not meet in it.
class Ear final : public std::streambuf {
 public:
  explicit Ear(std::streambuf* next) : next_(next) {}

 protected:
  int_type overflow(int_type character) override {
    if (traits_type::eq_int_type(character, traits_type::eof())) {
      return traits_type::not_eof(character);
    }
    const char byte = traits_type::to_char_type(character);
    note(&byte, 1);
    return next_->sputc(byte);
  }

  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    note(bytes, static_cast<size_t>(count));
    return next_->sputn(bytes, count);
  }

  int sync() override { return next_->pubsync(); }

 private:
  static void note(const char* bytes, size_t count) noexcept {
    std::string* heard = listener();
    if (heard == nullptr || heard->size() >= kMostHeard) {
      return;
    }
    try {
      heard->append(bytes, std::min(count, kMostHeard - heard->size()));
    } catch (...) {
      // No memory for the words: the number has to do.
    }
  }

  std::streambuf* next_;
};

// Once, and for good: what is written at the very end still goes through it.
void put_on() {
  static const bool done = [] {
    std::cerr.rdbuf(new Ear(std::cerr.rdbuf()));
    return true;
  }();
  (void)done;
}

}  // namespace

Hearing::Hearing() : before_(listener()) {
  put_on();
  listener() = &heard_;
}

Hearing::~Hearing() { listener() = before_; }

std::string Hearing::reason(const char* otherwise) const {
  for (const char* mark : {"Exception in aoti_torch: ", "Error: "}) {
    const size_t found = heard_.find(mark);
    if (found != std::string::npos) {
      // Behind the first line are frames, and what others made of it.
      const size_t from = found + std::char_traits<char>::length(mark);
      return heard_.substr(from, heard_.find('\n', from) - from);
    }
  }
  return otherwise;
}

}  // namespace mesh
