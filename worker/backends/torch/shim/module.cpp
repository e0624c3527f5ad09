// Loading and calling TorchScript modules. The bindings do so too, but know no optional values, no named tuples and no
// dictionaries of tensors as arguments, and copy every container on its way.

#include "module.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/jit/serialization/import.h>

#include "schema.h"
#include "shim.h"

namespace mesh {
namespace {

c10::IValue plain_of(const c10::TypePtr& type, const at::Tensor& tensor) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
      return tensor.item().toLong();
    case c10::TypeKind::FloatType:
      return tensor.item().toDouble();
    case c10::TypeKind::BoolType:
      return tensor.item().toBool();
    default:
      break;
  }
  const auto item = type->expect<c10::ListType>()->getElementType();
  c10::impl::GenericList list(item);
  const at::Tensor flat = tensor.reshape({-1});
  for (int64_t index = 0; index < flat.numel(); ++index) {
    list.push_back(plain_of(item, flat[index]));
  }
  return list;
}

}  // namespace

c10::IValue Source::make(const Given& given) const {
  switch (kind) {
    case Kind::Absent:
      return fallback;
    case Kind::Input: {
      const at::Tensor* tensor = given.inputs[input];
      if (tensor == nullptr) {
        return fallback;
      }
      if (type->kind() != c10::TypeKind::TensorType) {
        return plain_of(type, *tensor);
      }
      return given.precision && tensor->is_floating_point() ? tensor->to(*given.precision) : *tensor;
    }
    case Kind::List: {
      c10::impl::GenericList list(type->expect<c10::ListType>()->getElementType());
      list.reserve(members.size());
      for (const Source& member : members) {
        list.push_back(member.make(given));
      }
      return list;
    }
    case Kind::Tuple: {
      std::vector<c10::IValue> values;
      values.reserve(members.size());
      for (const Source& member : members) {
        values.push_back(member.make(given));
      }
      const auto tuple = type->expect<c10::TupleType>();
      return tuple->schema() ? c10::ivalue::Tuple::createNamed(std::move(values), tuple)
                             : c10::ivalue::Tuple::create(std::move(values));
    }
    case Kind::Parameters: {
      if (optional && given.text_count == 0) {
        return fallback;
      }
      c10::impl::GenericDict dict(c10::StringType::get(), c10::StringType::get());
      for (size_t index = 0; index + 1 < given.text_count; index += 2) {
        const Bytes& name = given.texts[index];
        const Bytes& text = given.texts[index + 1];
        dict.insert(std::string(name.data, name.size), std::string(text.data, text.size));
      }
      return dict;
    }
    case Kind::Dict:
      break;
  }
  const auto dict_type = type->expect<c10::DictType>();
  c10::impl::GenericDict dict(dict_type->getKeyType(), dict_type->getValueType());
  for (size_t index = 0; index < members.size(); ++index) {
    c10::IValue value = members[index].make(given);
    if (!value.isNone()) {
      dict.insert(keys[index], std::move(value));
    }
  }
  return dict;
}

namespace {

// Reads a plan: numbers with a meaning each, and the keys that they speak of, in order.
struct Reader {
  int64_t number() {
    TORCH_CHECK(next_number < number_count, "the plan of a call ends early");
    return numbers[next_number++];
  }

  std::string key() {
    TORCH_CHECK(next_key < key_count, "the plan of a call has too few keys");
    return keys[next_key++];
  }

  const int64_t* numbers;
  size_t number_count;
  const char* const* keys;
  size_t key_count;
  size_t next_number = 0;
  size_t next_key = 0;
};

Source read_source(Reader& reader, c10::TypePtr type, const c10::IValue& fallback) {
  Source source;
  if (const auto optional = type->cast<c10::OptionalType>()) {
    type = optional->getElementType();
    source.optional = true;
  }
  source.kind = static_cast<Source::Kind>(reader.number());
  source.type = type;
  source.fallback = fallback;
  if (source.kind == Source::Kind::Absent || source.kind == Source::Kind::Parameters) {
    return source;
  }
  const auto count = static_cast<size_t>(reader.number());
  if (source.kind == Source::Kind::Input) {
    source.input = count;
    return source;
  }
  const auto tuple = type->cast<c10::TupleType>();
  if (source.kind == Source::Kind::Dict && tuple) {
    // A named tuple: its keys are in its own order.
    source.kind = Source::Kind::Tuple;
    for (size_t index = 0; index < count; ++index) {
      reader.key();
      source.members.push_back(read_source(reader, tuple->elements().at(index), {}));
    }
    return source;
  }
  for (size_t index = 0; index < count; ++index) {
    c10::TypePtr of;
    if (source.kind == Source::Kind::Dict) {
      source.keys.push_back(reader.key());
      of = type->expect<c10::DictType>()->getValueType();
    } else {
      of = tuple ? tuple->elements().at(index) : type->expect<c10::ListType>()->getElementType();
    }
    source.members.push_back(read_source(reader, of, {}));
  }
  return source;
}

std::vector<Way> read_ways(Reader& reader) {
  std::vector<Way> ways(static_cast<size_t>(reader.number()));
  for (Way& way : ways) {
    const auto steps = static_cast<size_t>(reader.number());
    for (size_t step = 0; step < steps; ++step) {
      const int64_t place = reader.number();
      way.push_back(place >= 0 ? c10::IValue(place) : c10::IValue(reader.key()));
    }
  }
  return ways;
}

c10::IValue step_into(const c10::IValue& value, const c10::IValue& step, int output) {
  if (step.isString()) {
    if (value.isGenericDict()) {
      const auto dict = value.toGenericDict();
      const auto found = dict.find(step);
      if (found != dict.end()) {
        return found->value();
      }
    } else if (value.isTuple()) {
      const auto type = value.type()->expect<c10::TupleType>();
      const auto place = type->schema() ? type->schema()->argumentIndexWithName(step.toStringRef()) : std::nullopt;
      if (place) {
        return value.toTupleRef().elements()[static_cast<size_t>(*place)];
      }
    }
    throw OutputError(output, "the model returns no '" + step.toStringRef() + "'");
  }
  const auto place = static_cast<size_t>(step.toInt());
  const size_t count = value.isTuple() ? value.toTupleRef().elements().size() : (value.isList() ? value.toListRef().size() : 0);
  if (place >= count) {
    throw OutputError(output, "the model returns " + std::to_string(count) + " values, and this is number " + std::to_string(place));
  }
  return value.isTuple() ? value.toTupleRef().elements()[place] : value.toListRef()[place];
}

at::Tensor tensor_of(const c10::IValue& value, int output) {
  if (value.isTensor() && value.toTensor().defined()) {
    return value.toTensor();
  }
  if (value.isInt()) {
    return at::scalar_tensor(value.toInt(), at::kLong).reshape({1});
  }
  if (value.isDouble()) {
    return at::scalar_tensor(value.toDouble(), at::kDouble).reshape({1});
  }
  if (value.isBool()) {
    return at::scalar_tensor(value.toBool(), at::kBool).reshape({1});
  }
  if (value.isIntList()) {
    return at::tensor(value.toIntVector());
  }
  if (value.isDoubleList()) {
    return at::tensor(value.toDoubleVector(), at::kDouble);
  }
  if (value.isBoolList()) {
    const auto list = value.toBoolList();
    at::Tensor tensor = at::empty({static_cast<int64_t>(list.size())}, at::kBool);
    bool* bytes = tensor.data_ptr<bool>();
    for (size_t index = 0; index < list.size(); ++index) {
      bytes[index] = list.get(index);
    }
    return tensor;
  }
  throw OutputError(output, value.isNone() ? "the model returns none" : "the model returns a value that is not a tensor");
}

}  // namespace
}  // namespace mesh

extern "C" {

// Loads a module onto the CPU (-1) or a CUDA device, for evaluation. Null if that fails.
mesh::Module* mesh_torch_module_load(const char* path, int cuda) noexcept {
  return mesh::guarded<mesh::Module*>(nullptr, [&] {
    const c10::Device device =
        cuda < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda));
    auto loaded = std::make_unique<mesh::Module>();
    loaded->module = torch::jit::load(path, device);
    loaded->module.eval();
    return loaded.release();
  });
}

void mesh_torch_module_free(mesh::Module* module) noexcept { delete module; }

// The module's signature as JSON, for `mesh_torch_text_free`. Null if it has none.
std::string* mesh_torch_module_signature(const mesh::Module* module) noexcept {
  return mesh::guarded<std::string*>(nullptr, [&] { return new std::string(mesh::signature_json(module->module)); });
}

const char* mesh_torch_text(const std::string* text) noexcept { return text->c_str(); }

void mesh_torch_text_free(std::string* text) noexcept { delete text; }

// Says how the module is called from now on. The numbers are, for each argument and then within it: 0 and the input's place,
// 1 for left out, 2, 3 or 4 and a count for a list, tuple or dictionary (with a key before each of its values), 5 for the request's
// parameters; then the number of outputs and for each the number of steps and these, -1 standing for the next key.
bool mesh_torch_module_plan(
    mesh::Module* module, const int64_t* numbers, size_t number_count, const char* const* keys, size_t key_count) noexcept {
  return mesh::guarded(false, [&] {
    mesh::Reader reader{numbers, number_count, keys, key_count};
    const auto& schema = module->module.get_method("forward").function().getSchema();
    std::vector<mesh::Source> arguments;
    for (size_t index = 1; index < schema.arguments().size(); ++index) {
      const auto& argument = schema.arguments()[index];
      arguments.push_back(mesh::read_source(reader, argument.type(), argument.default_value().value_or(c10::IValue())));
    }
    module->results = mesh::read_ways(reader);
    module->arguments = std::move(arguments);
    return true;
  });
}

// Calls the module as planned. An input that is null is left out; of the texts, each second one is the value of the name before it.
// Writes as many new tensors as the plan has outputs, or nothing and false.
bool mesh_torch_module_call(
    const mesh::Module* module,
    const at::Tensor* const* inputs,
    const mesh::Bytes* texts,
    size_t text_count,
    at::Tensor** outputs) noexcept {
  return mesh::guarded(false, [&] {
    const mesh::Given given{inputs, texts, text_count, module->precision};
    std::vector<c10::IValue> arguments;
    arguments.reserve(module->arguments.size());
    for (const mesh::Source& source : module->arguments) {
      arguments.push_back(source.make(given));
    }
    auto callee = module->module;
    const c10::IValue result = callee.forward(std::move(arguments));
    std::vector<std::unique_ptr<at::Tensor>> found;
    found.reserve(module->results.size());
    for (size_t output = 0; output < module->results.size(); ++output) {
      const int number = static_cast<int>(output);
      c10::IValue value = result;
      for (const c10::IValue& step : module->results[output]) {
        value = mesh::step_into(value, step, number);
      }
      found.push_back(std::make_unique<at::Tensor>(mesh::tensor_of(value, number)));
    }
    for (size_t output = 0; output < found.size(); ++output) {
      outputs[output] = found[output].release();
    }
    return true;
  });
}
}
