// A TorchScript module's signature as JSON.

#pragma once

#include <string>

#include <torch/csrc/jit/api/module.h>

namespace mesh {

std::string signature_json(const torch::jit::Module& module);

}  // namespace mesh
