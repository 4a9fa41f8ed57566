#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <span>

#include "base/error.h"
#include "base/files.h"
#include "base/safetensors.h"
#include "model/language_model.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

at::ScalarType torch_type(Dtype dtype, const std::string& what) {
  switch (dtype) {
    case Dtype::f64:
      return at::kDouble;
    case Dtype::f32:
      return at::kFloat;
    case Dtype::f16:
      return at::kHalf;
    case Dtype::bf16:
      return at::kBFloat16;
    default:
      input_error("{} has dtype {}, but weights are F64, F32, F16 or BF16", what, dtype_name(dtype));
  }
}

// The files that hold the weights: one, or the shards that an index names, each inside the directory.
std::vector<fs::path> weight_files(const fs::path& directory) {
  if (!fs::exists(directory / kIndex)) return {directory / kSingle};
  const Json index = load_json(directory / kIndex);
  const std::string where = (directory / kIndex).string();
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
          "{}: must be an object with a 'weight_map' of tensor names to files", where);
  std::set<std::string> names;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    require(file.is_string(), "{}: the file of '{}' must be a string", where, tensor);
    const auto name = file.get<std::string>();
    require(fs::path(name).filename() == name && name != "..", "{}: '{}' must be a file beside the index", where, name);
    names.insert(name);
  }
  std::vector<fs::path> files;
  files.reserve(names.size());
  for (const auto& name : names) files.push_back(directory / name);
  return files;
}

// at::isfinite writes three more tensors of that size.
bool all_finite(std::span<const float> x) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (const float v : x) bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(v) & kExponent) == kExponent);
  return bad == 0;
}

at::Tensor to_tensor(const StoredTensor& stored, const std::string& what) {
  const auto type = torch_type(stored.dtype, what);
  at::Tensor out = at::empty(stored.shape, type);
  std::copy(stored.data.begin(), stored.data.end(), static_cast<std::byte*>(out.mutable_data_ptr()));
  out = out.to(at::kFloat);
  require(all_finite({out.const_data_ptr<float>(), static_cast<size_t>(out.numel())}),
          "{} holds NaN or infinite values", what);
  return out;
}

}  // namespace

LanguageModel LanguageModel::load(const fs::path& directory, at::Device device) {
  const ModelConfig config = ModelConfig::load(directory);
  std::map<std::string, at::Tensor> found;
  std::map<std::string, WeightSpec> expected;
  std::vector<std::string> names;
  for (const WeightSpec& spec : weight_specs(config)) {
    expected.emplace(spec.name, spec);
    names.push_back(spec.name);
  }
  for (const fs::path& file : weight_files(directory)) {
    const SafetensorsReader reader(file);
    for (const auto& [name, stored] : reader.tensors()) {
      const std::string what = file.string() + ": tensor '" + name + "'";
      const auto spec = expected.find(name);
      if (spec == expected.end()) input_error("{} is not a weight of this config{}", what, did_you_mean(name, names));
      require(stored.shape == spec->second.shape, "{} has shape [{}], but config.json makes it [{}]", what,
              fmt::join(stored.shape, ", "), fmt::join(spec->second.shape, ", "));
      require(found.emplace(name, to_tensor(stored, what).to(device)).second, "{} stands in two shards", what);
    }
  }
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (const std::string& name : names) {
    const auto it = found.find(name);
    require(it != found.end(), "{}: the weights lack '{}', which config.json asks for", directory.string(), name);
    weights.emplace_back(name, it->second);
  }
  return {config, std::move(weights)};
}

void LanguageModel::save(const fs::path& directory, int64_t shard_bytes, bool full_precision) const {
  write_file_atomically(directory / "config.json", config_.to_json().dump(2) + "\n");
  const bool half = config_.dtype == "bfloat16" && !full_precision;
  std::vector<std::vector<std::pair<std::string, at::Tensor>>> shards(1);
  int64_t total = 0, in_shard = 0;
  for (const auto& [name, w] : weights_) {
    const at::Tensor stored = w.detach().to(at::kCPU, half ? at::kBFloat16 : at::kFloat).contiguous();
    const auto size = static_cast<int64_t>(stored.nbytes());
    if (in_shard > 0 && in_shard + size > shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().emplace_back(name, stored);
    in_shard += size;
    total += size;
  }
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file =
        shards.size() == 1 ? kSingle : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<std::pair<std::string, StoredTensor>> tensors;
    for (const auto& [name, w] : shards[i]) {
      const std::span bytes(static_cast<const std::byte*>(w.const_data_ptr()), w.nbytes());
      tensors.emplace_back(name, StoredTensor{half ? Dtype::bf16 : Dtype::f32, w.sizes().vec(), bytes});
      map[name] = file;
    }
    write_safetensors(directory / file, tensors, {{"format", "pt"}});
  }
  if (shards.size() > 1)
    write_file_atomically(directory / kIndex,
                          Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
  // An earlier save of the other kind: its index would still be in charge, its single file only in the way.
  fs::remove(directory / (shards.size() > 1 ? kSingle : kIndex));
}

}  // namespace oryx
