// A TorchScript module with the plan of its calls.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

namespace mesh {

// How an argument is made of inputs.
struct Source {
  enum class Kind { Input, Absent, List, Tuple, Dict };

  c10::IValue make(const at::Tensor* const* inputs, std::optional<at::ScalarType> precision) const;

  Kind kind = Kind::Absent;
  // The argument's type, without a possible none.
  c10::TypePtr type;
  size_t input = 0;
  // What stands for an input that is left out.
  c10::IValue fallback;
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
