// Reads the signature of a module's forward: names, types and defaults of its arguments, and its result. Beside the types,
// which name no keys and no lengths, the code is looked at for those that it reads or makes.

#include "schema.h"

#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include <torch/csrc/jit/ir/ir.h>

namespace {

using c10::TypeKind;
using c10::TypePtr;
using torch::jit::Node;
using torch::jit::Value;

// Deeper types are no signature of tensors.
constexpr int kMaxDepth = 8;
// More keys or elements than any configuration has inputs.
constexpr size_t kMaxMembers = 64;

void write_text(std::ostringstream& out, const std::string& text) {
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out << ' ';
    } else {
      out << c;
    }
  }
  out << '"';
}

void write_texts(std::ostringstream& out, const std::vector<std::string>& texts) {
  out << '[';
  for (size_t index = 0; index < texts.size(); ++index) {
    out << (index == 0 ? "" : ",");
    write_text(out, texts[index]);
  }
  out << ']';
}

// What the code reads of an argument's value, or how it makes a result.
struct Members {
  std::vector<std::string> keys;
  std::optional<size_t> length;
};

void add_key(Members& members, const std::optional<c10::IValue>& key) {
  if (!key || !key->isString() || members.keys.size() >= kMaxMembers) {
    return;
  }
  const std::string& text = key->toStringRef();
  for (const std::string& known : members.keys) {
    if (known == text) {
      return;
    }
  }
  members.keys.push_back(text);
}

void add_index(Members& members, const std::optional<c10::IValue>& index) {
  if (index && index->isInt() && index->toInt() >= 0 && static_cast<size_t>(index->toInt()) < kMaxMembers) {
    const size_t least = static_cast<size_t>(index->toInt()) + 1;
    members.length = std::max(members.length.value_or(0), least);
  }
}

Members reads_of(const Value* value) {
  Members members;
  for (const auto& use : value->uses()) {
    const Node* node = use.user;
    if (node->kind() == c10::prim::ListUnpack && node->outputs().size() <= kMaxMembers) {
      members.length = node->outputs().size();
    } else if (node->kind() == c10::aten::__getitem__ && use.offset == 0 && node->inputs().size() > 1) {
      const auto member = torch::jit::toIValue(node->input(1));
      add_key(members, member);
      add_index(members, member);
    }
  }
  return members;
}

Members made_by(const Value* value) {
  Members members;
  const Node* node = value->node();
  if (value->uses().size() != 1) {
    // Somebody but the return has it as well, and may put in more or take some out.
    return members;
  }
  if (node->kind() == c10::prim::DictConstruct) {
    for (size_t index = 0; index + 1 < node->inputs().size(); index += 2) {
      add_key(members, torch::jit::toIValue(node->input(index)));
    }
  } else if (node->kind() == c10::prim::ListConstruct && node->inputs().size() <= kMaxMembers) {
    members.length = node->inputs().size();
  }
  return members;
}

// The value that stands for one element of a tuple that is made here; null if that cannot be seen.
const Value* element(const Value* value, size_t index, bool result) {
  if (value == nullptr || !result || value->node()->kind() != c10::prim::TupleConstruct) {
    return nullptr;
  }
  return index < value->node()->inputs().size() ? value->node()->input(index) : nullptr;
}

void write_type(std::ostringstream& out, const TypePtr& type, const Value* value, bool result, int depth);

void write_of(std::ostringstream& out, const char* kind, const TypePtr& of, const Value* value, bool result, int depth) {
  out << "{\"is\":\"" << kind << "\",\"of\":";
  write_type(out, of, value, result, depth + 1);
}

void write_tuple(std::ostringstream& out, const TypePtr& type, const Value* value, bool result, int depth) {
  const auto tuple = type->expect<c10::TupleType>();
  out << "{\"is\":\"tuple\",\"of\":[";
  for (size_t index = 0; index < tuple->elements().size(); ++index) {
    out << (index == 0 ? "" : ",");
    write_type(out, tuple->elements()[index], element(value, index, result), result, depth + 1);
  }
  out << "],\"names\":";
  std::vector<std::string> names;
  if (tuple->schema()) {
    for (const auto& field : tuple->schema()->arguments()) {
      names.push_back(field.name());
    }
  }
  write_texts(out, names);
  out << '}';
}

void write_type(std::ostringstream& out, const TypePtr& type, const Value* value, bool result, int depth) {
  const auto members = [&] {
    return value == nullptr ? Members{} : (result ? made_by(value) : reads_of(value));
  };
  const auto plain = [&](const char* kind) { out << "{\"is\":\"" << kind << "\"}"; };
  const TypeKind kind = depth > kMaxDepth ? TypeKind::AnyType : type->kind();
  if (kind == TypeKind::TensorType) {
    plain("tensor");
  } else if (kind == TypeKind::IntType) {
    plain("int");
  } else if (kind == TypeKind::FloatType) {
    plain("float");
  } else if (kind == TypeKind::BoolType) {
    plain("bool");
  } else if (kind == TypeKind::OptionalType) {
    write_of(out, "optional", type->expect<c10::OptionalType>()->getElementType(), value, result, depth);
    out << '}';
  } else if (kind == TypeKind::ListType) {
    write_of(out, "list", type->expect<c10::ListType>()->getElementType(), nullptr, result, depth);
    const Members found = members();
    if (found.length) {
      out << ",\"length\":" << *found.length;
    }
    out << '}';
  } else if (kind == TypeKind::TupleType) {
    write_tuple(out, type, value, result, depth);
  } else if (kind == TypeKind::DictType && type->expect<c10::DictType>()->getKeyType()->kind() == TypeKind::StringType) {
    write_of(out, "dict", type->expect<c10::DictType>()->getValueType(), nullptr, result, depth);
    out << ",\"keys\":";
    write_texts(out, members().keys);
    out << '}';
  } else {
    out << "{\"is\":\"other\",\"text\":";
    write_text(out, type->annotation_str());
    out << '}';
  }
}

}  // namespace

std::string mesh::signature_json(const torch::jit::Module& module) {
  const auto method = module.get_method("forward");
  const auto& schema = method.function().getSchema();
  const auto graph = method.graph();
  std::ostringstream out;
  out << "{\"arguments\":[";
  // The first argument is the module itself.
  for (size_t index = 1; index < schema.arguments().size(); ++index) {
    const auto& argument = schema.arguments()[index];
    out << (index == 1 ? "" : ",") << "{\"name\":";
    write_text(out, argument.name());
    out << ",\"type\":";
    const Value* value = index < graph->inputs().size() ? graph->inputs()[index] : nullptr;
    write_type(out, argument.type(), value, false, 0);
    if (argument.default_value()) {
      std::ostringstream text;
      text << *argument.default_value();
      out << ",\"default\":";
      write_text(out, text.str());
    }
    out << '}';
  }
  out << "],\"result\":";
  const bool returns = schema.returns().size() == 1 && graph->outputs().size() == 1;
  write_type(
      out,
      schema.returns().empty() ? c10::NoneType::get() : schema.returns()[0].type(),
      returns ? graph->outputs()[0] : nullptr,
      true,
      0);
  out << '}';
  return out.str();
}
