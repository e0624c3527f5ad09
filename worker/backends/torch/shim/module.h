// A TorchScript module with the plan of its calls.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

namespace mesh {

// Bytes that the caller holds.
struct Bytes {
  const char* data;
  size_t size;
};

// What a call is made of: the inputs, null where one is left out, and the request's parameters, a name before each text.
struct Given {
  const at::Tensor* const* inputs;
  const Bytes* texts;
  size_t text_count;
  std::optional<at::ScalarType> precision;
};

// How an argument is made of what is given.
struct Source {
  enum class Kind { Input, Absent, List, Tuple, Dict, Parameters };

  c10::IValue make(const Given& given) const;

  Kind kind = Kind::Absent;
  // The argument's type, without a possible none.
  c10::TypePtr type;
  size_t input = 0;
  // What stands for an input that is left out, and for parameters where there are none.
  c10::IValue fallback;
  // Whether it may be none.
  bool optional = false;
  std::vector<Source> members;
  std::vector<std::string> keys;
};

// The way to an output: an integer is a place, a string a key.
using Way = std::vector<c10::IValue>;

struct Module {
  torch::jit::Module module;
  std::vector<Source> arguments;
  std::vector<Way> results;
  // The type that floating-point inputs are converted to, where the module computes in another one than they have.
  std::optional<at::ScalarType> precision;
};

}  // namespace mesh
