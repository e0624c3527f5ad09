// Other forms of a module, and what a module's tensors take.

#include <memory>
#include <unordered_set>

#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/freeze_module.h>

#include "module.h"
#include "shim.h"

namespace {

// Which form: the numbers are those of the caller.
enum class Form { Frozen = 1, Optimized = 2, Bf16 = 3, Fp16 = 4 };

void convert_constants(torch::jit::Block* block, at::ScalarType precision) {
  for (torch::jit::Node* node : block->nodes()) {
    for (torch::jit::Block* inner : node->blocks()) {
      convert_constants(inner, precision);
    }
    if (node->kind() != c10::prim::Constant || !node->hasAttribute(c10::attr::value) ||
        node->kindOf(c10::attr::value) != torch::jit::AttributeKind::t) {
      continue;
    }
    const at::Tensor& held = node->t(c10::attr::value);
    // A number in a tensor's clothes keeps its digits.
    if (held.defined() && held.is_floating_point() && held.dim() > 0) {
      node->t_(c10::attr::value, held.to(precision));
      node->output()->inferTypeFrom(node->t(c10::attr::value));
    }
  }
}

// In place. Whole numbers and truth values stay what they are.
void convert(const torch::jit::Module& module, at::ScalarType precision) {
  const auto all = [&](const auto& tensors) {
    for (at::Tensor tensor : tensors) {
      if (tensor.is_floating_point()) {
        tensor.set_data(tensor.to(precision));
      }
    }
  };
  all(module.parameters());
  all(module.buffers());
}

uint64_t count(const torch::jit::Block* block) {
  uint64_t nodes = 0;
  for (const torch::jit::Node* node : block->nodes()) {
    nodes += 1;
    for (const torch::jit::Block* inner : node->blocks()) {
      nodes += count(inner);
    }
  }
  return nodes;
}

class Bytes {
 public:
  void add(const at::Tensor& tensor) {
    if (!tensor.defined()) {
      return;
    }
    if (!tensor.has_storage()) {
      sum_ += static_cast<uint64_t>(tensor.numel()) * tensor.dtype().itemsize();
    } else if (seen_.insert(tensor.storage().unsafeGetStorageImpl()).second) {
      sum_ += tensor.storage().nbytes();
    }
  }

  void add(torch::jit::Block* block) {
    for (torch::jit::Node* node : block->nodes()) {
      for (torch::jit::Block* inner : node->blocks()) {
        add(inner);
      }
      if (node->kind() == c10::prim::Constant) {
        if (const auto value = torch::jit::toIValue(node->output())) {
          add(*value);
        }
      }
    }
  }

  void add(const c10::IValue& value) {
    std::vector<at::Tensor> tensors;
    value.visit([&](const c10::IValue& inner) {
      if (inner.isTensor()) {
        add(inner.toTensor());
      }
      return false;
    });
  }

  uint64_t sum() const { return sum_; }

 private:
  std::unordered_set<const c10::StorageImpl*> seen_;
  uint64_t sum_ = 0;
};

}  // namespace

extern "C" {

// Makes the module another form of itself, called by the same plan. If that fails, it must not be called any more.
bool mesh_torch_module_turn(mesh::Module* module, int form) noexcept {
  return mesh::guarded(false, [&] {
    switch (static_cast<Form>(form)) {
      case Form::Frozen:
        module->module = torch::jit::freeze(module->module);
        break;
      case Form::Optimized: {
        // Of a frozen copy: what is given is changed in place. What it was made of goes first: it may hold the weights again.
        module->module = torch::jit::freeze(module->module);
        module->module = torch::jit::optimize_for_inference(module->module);
        break;
      }
      case Form::Bf16:
      case Form::Fp16:
        module->precision = static_cast<Form>(form) == Form::Bf16 ? at::kBFloat16 : at::kHalf;
        convert(module->module, *module->precision);
        module->module = torch::jit::freeze(module->module);
        convert_constants(module->module.get_method("forward").graph()->block(), *module->precision);
        break;
      default:
        TORCH_CHECK(false, "no such form of a module");
    }
    return true;
  });
}

// Bytes of the module's parameters, buffers, other attributes and constants, each storage once.
uint64_t mesh_torch_module_bytes(const mesh::Module* module) noexcept {
  return mesh::guarded<uint64_t>(0, [&] {
    Bytes bytes;
    for (const auto& inner : module->module.modules()) {
      for (const auto& attribute : inner.named_attributes(false)) {
        if (!attribute.value.isModule()) {
          bytes.add(attribute.value);
        }
      }
      for (const auto& method : inner.get_methods()) {
        bytes.add(method.graph()->block());
      }
    }
    return bytes.sum();
  });
}

// How many operations and constants the code of the module's methods has, each submodule's for itself.
uint64_t mesh_torch_module_nodes(const mesh::Module* module) noexcept {
  return mesh::guarded<uint64_t>(0, [&] {
    uint64_t nodes = 0;
    for (const auto& inner : module->module.modules()) {
      for (const auto& method : inner.get_methods()) {
        nodes += count(method.graph()->block());
      }
    }
    return nodes;
  });
}
}
