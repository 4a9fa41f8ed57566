#pragma once

#include <memory>
#include <string>

#include "data/tokenizer_model.h"

namespace oryx {

// Reads a tokenizer.json of Hugging Face's `tokenizers`, as far as byte-level BPE goes: normalizer none or NFC;
// pre-tokenizer ByteLevel, or a sequence of Split (isolated), Digits and ByteLevel; model BPE; decoder ByteLevel. The
// post-processor is left alone. `source` is the name in messages. InputError for anything else.
std::unique_ptr<const TokenizerModel> parse_tokenizer_json(const std::string& text, const std::string& source);

}  // namespace oryx
