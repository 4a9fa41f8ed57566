#include "data/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "data/byte_alphabet.h"
#include "data/byte_bpe_model.h"

namespace oryx {
namespace {

constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr int64_t kMaxId = 1 << 21;

// Which added tokens of the known families end a document, and begin one.
constexpr const char* kEos[] = {"<|endoftext|>", "<|end_of_text|>", "</s>"};
constexpr const char* kBos[] = {"<|begin_of_text|>", "<|startoftext|>", "<s>"};

class Reader {
 public:
  Reader(const Json& root, const std::string& source) : root_(root), source_(source) {
    require(root.is_object() && root.contains("model"), "{}: not a tokenizer.json: it has no \"model\"", source_);
  }

  std::unique_ptr<const TokenizerModel> read() {
    read_normalizer(member(root_, "normalizer"));
    read_pre_tokenizer(member(root_, "pre_tokenizer"));
    require(byte_level_, "{}: \"pre_tokenizer\" has no ByteLevel: only byte-level BPE is supported", source_);
    const Json& decoder = member(root_, "decoder");
    require(type_of(decoder) == "ByteLevel", "{}: the decoder is {}; it should be ByteLevel", source_,
            type_of(decoder));
    const Json& model = root_["model"];
    read_vocabulary(model);
    read_merges(model);
    read_added_tokens(member(root_, "added_tokens"));
    parts_.eos_id = known_token(kEos, -1);
    require(parts_.eos_id >= 0, "{}: no added token ends a document; one should be {}", source_, fmt::join(kEos, ", "));
    parts_.bos_id = known_token(kBos, parts_.eos_id);
    return std::make_unique<ByteBpeModel>(std::move(parts_));
  }

 private:
  // A member that may be absent; then null.
  static const Json& member(const Json& object, const char* key) {
    static const Json kNull;
    const auto found = object.find(key);
    return found == object.end() ? kNull : *found;
  }
  static std::string type_of(const Json& object) {
    const Json& type = object.is_object() ? member(object, "type") : object;
    return type.is_string() ? excerpt(type.get_ref<const std::string&>()) : "none";
  }
  bool flag(const Json& object, const char* key, bool fallback) const {
    const Json& value = member(object, key);
    if (value.is_null()) return fallback;
    require(value.is_boolean(), "{}: \"{}\" must be true or false", source_, key);
    return value.get<bool>();
  }
  const std::string& text(const Json& value, const char* what) const {
    require(value.is_string(), "{}: {} must be a string", source_, what);
    return value.get_ref<const std::string&>();
  }
  // The steps of a "Sequence", whose member has the name given, or the one step itself.
  template <typename Step>
  void each_step(const Json& object, const char* list, Step&& step) {
    if (type_of(object) != "Sequence") return step(object);
    const Json& steps = member(object, list);
    require(steps.is_array(), "{}: a Sequence must have \"{}\"", source_, list);
    for (const Json& one : steps) step(one);
  }

  void read_normalizer(const Json& normalizer) {
    if (normalizer.is_null()) return;
    each_step(normalizer, "normalizers", [&](const Json& step) {
      require(type_of(step) == "NFC", "{}: the normalizer {} is not supported; it should be NFC or none", source_,
              type_of(step));
      parts_.nfc = true;
    });
  }

  void add_splitter(const std::string& pattern) {
    require(!byte_level_, "{}: \"pre_tokenizer\": ByteLevel must be the last step", source_);
    parts_.splitters.emplace_back(pattern, source_ + ": \"pre_tokenizer\"");
  }

  void read_pre_tokenizer(const Json& pre_tokenizer) {
    each_step(pre_tokenizer, "pretokenizers", [&](const Json& step) {
      const std::string type = type_of(step);
      if (type == "ByteLevel") {
        require(!flag(step, "add_prefix_space", true),
                "{}: \"add_prefix_space\" is not supported, because it changes the text", source_);
        if (flag(step, "use_regex", true)) add_splitter(kGpt2Pattern);
        byte_level_ = true;
      } else if (type == "Digits") {
        add_splitter(flag(step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
      } else if (type == "Split") {
        require(text(member(step, "behavior"), "the behavior of a Split") == "Isolated" && !flag(step, "invert", false),
                "{}: a Split of behavior {} is not supported; it should be Isolated, not inverted", source_,
                excerpt(member(step, "behavior").get_ref<const std::string&>()));
        const Json& pattern = member(step, "pattern");
        require(pattern.is_object() && pattern.contains("Regex"), "{}: a Split must have a pattern with a Regex",
                source_);
        add_splitter(text(pattern["Regex"], "a Regex"));
      } else {
        input_error("{}: the pre-tokenizer {} is not supported; byte-level BPE has ByteLevel, Split and Digits",
                    source_, type);
      }
    });
  }

  void set_token(int64_t id, std::string bytes) {
    require(id >= 0 && id < kMaxId, "{}: token id {} should be 0 to {}", source_, id, kMaxId - 1);
    if (static_cast<size_t>(id) >= parts_.tokens.size()) parts_.tokens.resize(id + 1);
    parts_.tokens[id] = std::move(bytes);
  }

  static std::string bytes_or_text(const std::string& written) {
    const auto bytes = bytes_of(written);
    return bytes ? *bytes : written;
  }

  void read_vocabulary(const Json& model) {
    require(model.is_object(), "{}: \"model\" must be an object", source_);
    const std::string type = type_of(model);  // older files have none
    require(type == "BPE" || type == "none", "{}: the model is {}; only byte-level BPE is supported", source_, type);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "unk_token"}) {
      const Json& value = member(model, key);
      require(value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()),
              "{}: \"{}\" must be empty in byte-level BPE", source_, key);
    }
    require(!flag(model, "byte_fallback", false), "{}: \"byte_fallback\" must be false in byte-level BPE", source_);
    require(member(model, "dropout").is_null(), "{}: \"dropout\" is not supported; it should be null", source_);
    parts_.whole_words = flag(model, "ignore_merges", false);
    const Json& vocabulary = member(model, "vocab");
    require(vocabulary.is_object(), "{}: the model has no \"vocab\"", source_);
    std::vector<bool> used;
    for (const auto& [written, id] : vocabulary.items()) {
      require(id.is_number_integer(), "{}: the id of the token '{}' must be an integer", source_, excerpt(written));
      const auto number = id.get<int64_t>();
      std::string bytes = bytes_or_text(written);
      set_token(number, bytes);
      if (used.size() < parts_.tokens.size()) used.resize(parts_.tokens.size());
      require(!used[number], "{}: token id {} is used twice", source_, number);
      used[number] = true;
      parts_.lookup.emplace(std::move(bytes), static_cast<int32_t>(number));
    }
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = parts_.lookup.find(std::string(1, static_cast<char>(byte)));
      const bool in_utf8 = byte < 0xc0 || (byte > 0xc1 && byte < 0xf5);
      require(found != parts_.lookup.end() || !in_utf8, "{}: no token for the byte 0x{:02x}: not byte-level BPE",
              source_, byte);
      parts_.byte_ids[byte] = found != parts_.lookup.end() ? found->second : -1;
    }
  }

  void read_merges(const Json& model) {
    const Json& merges = member(model, "merges");
    require(merges.is_array(), "{}: the model has no \"merges\"", source_);
    parts_.merges.reserve(merges.size());
    const auto id_of = [&](const std::string& bytes, const Json& merge) {
      const auto found = parts_.lookup.find(bytes);
      require(found != parts_.lookup.end(), "{}: the merge {} has a part or a result that is no token", source_,
              excerpt(merge.dump()));
      return found->second;
    };
    int32_t rank = 0;
    for (const Json& merge : merges) {
      std::string left, right;  // "a b" or ["a", "b"]
      if (merge.is_string()) {
        const auto& both = merge.get_ref<const std::string&>();
        const size_t space = both.find(' ');
        require(space != std::string::npos && both.find(' ', space + 1) == std::string::npos,
                "{}: the merge '{}' should be two tokens with a space between them", source_, excerpt(both));
        left = both.substr(0, space), right = both.substr(space + 1);
      } else {
        require(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
                "{}: a merge should be two tokens", source_);
        left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
      }
      left = bytes_or_text(left), right = bytes_or_text(right);
      const int32_t left_id = id_of(left, merge), right_id = id_of(right, merge);
      parts_.merges.add(left_id, right_id, rank++, id_of(left + right, merge));
    }
  }

  void read_added_tokens(const Json& tokens) {
    if (tokens.is_null()) return;
    require(tokens.is_array(), "{}: \"added_tokens\" must be an array", source_);
    for (const Json& token : tokens) {
      require(token.is_object(), "{}: an added token must be an object", source_);
      const std::string& content = text(member(token, "content"), "the content of an added token");
      const Json& id = member(token, "id");
      require(!content.empty() && id.is_number_integer(), "{}: an added token needs content and an id", source_);
      for (const char* key : {"single_word", "lstrip", "rstrip"})
        require(!flag(token, key, false), "{}: the added token '{}': \"{}\" is not supported", source_,
                excerpt(content), key);
      const bool special = flag(token, "special", false);
      const bool normalized = flag(token, "normalized", !special);
      const auto number = id.get<int64_t>();
      set_token(number, content);
      AddedTokens& where = normalized ? parts_.after : parts_.before;
      where.add(
          {normalized && parts_.nfc ? ByteBpeModel::nfc(content) : content, static_cast<int32_t>(number), special});
      if (special) parts_.special.push_back(static_cast<int32_t>(number));
      added_.emplace(content, static_cast<int32_t>(number));
    }
  }

  template <size_t n>
  int32_t known_token(const char* const (&names)[n], int32_t fallback) const {
    for (const char* name : names) {
      const auto found = added_.find(name);
      if (found != added_.end()) return found->second;
    }
    return fallback;
  }

  const Json& root_;
  const std::string& source_;
  ByteBpeModel::Parts parts_;
  std::unordered_map<std::string, int32_t> added_;
  bool byte_level_ = false;
};

}  // namespace

std::unique_ptr<const TokenizerModel> parse_tokenizer_json(const std::string& text, const std::string& source) {
  const Json root = parse_json(text, source);
  return Reader(root, source).read();
}

}  // namespace oryx
