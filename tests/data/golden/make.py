"""Makes the golden encodings of tokenizers_golden_test: pip install tokenizers==0.21.0; python make.py TOKENIZERS OUT

TOKENIZERS holds gpt2/tokenizer.json and gpt_neox_20b/tokenizer.json as published. The files of Llama 3 and Qwen 2.5 may
not be passed on: llama3.json and qwen2.json are small tokenizers, trained here, with exactly their normalizer,
pre-tokenizer, decoder, BPE options and kinds of added tokens. Needs zstd in PATH.
"""
import json
import pathlib
import random
import subprocess
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[3]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog", "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "我能吞下玻璃而不伤身体。", "いろはにほへと ちりぬるを", "키스의 고유조건은 입술끼리 만나야 하고", "نص حكيم له سر قاطع", "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट राक्षसों", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "Příliš žluťoučký kůň úpěl", "Zwölf Boxkämpfer jagen", "œuvre naïve façade",
    "ⅣⅤ ½ ⅓ ² ³ ٣٤٥ १२३ 一二三 ①②", "Đặc trưng tiếng Việt", "ᚠᛇᚻ᛫ᛒᛦᚦ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 𐍈𐌰", "ﬁ ﬂ ﬀ Ｆｕｌｌ ｗｉｄｔｈ ㎞",
]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☃", "👩🏾‍🚀", "🤷‍♂️", "⌚️", "#️⃣"]
MARKS = ["e\u0301", "a\u0308\u0323", "\u1e9b\u0323", "n\u0303o", "\u0301", "\u212b", "\uac00", "\u1100\u1161\u11a8", "\u0958", "q\u0307\u0323",
         "\u2126", "\ufb1f", "\u0344", "\u0f73", "\ufa0e", "o\u0302\u0323"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\u0085", "\u180e",
          "\u200b", "\ufeff", "\v", "\f", "\x1c", "\x00", "\x7f", "\r", "    ", "\t\t"]
ENGLISH = ["'s", "'S", "'\u017f", "'ll", "'LL", "'Ve", "'re", "don't", "I'M", "he'D", "isn''t", "'", "''", "\u2019s", "o'clock", "'tis", "'T"]
SYNTAX = ["{", "}", "();", "->", "==", "!==", "/*", "*/", "//", "#include <x>", "&&", "::", "0x1F", "1e-9", "3.14159", "1234567890", "a_b",
          "camelCase", "\"", "`", "\\n", "...", "---", "<|", "|>", "$", "€", "°", "=>", "@", "http://x.org/a?b=c&d=1", "100,000", "12:34"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<tool_call>",
           "</tool_call>", "<|padding|>", "<|endoftext", "endoftext|>", "<|endoftext|><|endoftext|>", " <|im_end|> ", "<tool_call", "ti\u1ebfngtag",
           "tie\u0302\u0301ngtag"]


def strings():
    rng = random.Random(1)
    out = ["", " ", "a", "\n", "Hello, world!", *SCRIPTS, *EMOJI, *MARKS, *SPACES, *ENGLISH, *SYNTAX, *SPECIAL]
    out += [s * n for s in SPACES for n in (2, 3, 17)] + [" " * n + "x" for n in range(1, 40)] + ["\n" * n for n in range(2, 12)]
    out += ["x" + " " * n for n in (1, 2, 50, 127)] + ["9" * n for n in range(1, 14)] + ["a" * 300, "ab" * 200, "=" * 200, "的" * 90, "é" * 70]
    code = [p for folder in ("src", "tests", "scripts", "cmake") for p in sorted((ROOT / folder).rglob("*"))
            if p.suffix in (".cpp", ".h", ".py", ".txt", ".cmake")]
    for _ in range(350):  # a few lines of this repository
        lines = rng.choice(code).read_text().splitlines(keepends=True)
        at = rng.randrange(len(lines))
        out.append("".join(lines[at:at + rng.randint(1, 5)]))
    book = subprocess.run(["zstd", "-dc", ROOT / "data/books/valid.txt.zst"], capture_output=True, check=True).stdout.decode()
    for _ in range(350):
        at = rng.randrange(len(book) - 400)
        out.append(book[at:at + rng.randint(1, 250)])
    everything = [SCRIPTS, EMOJI, MARKS, SPACES, ENGLISH, SYNTAX, SPECIAL]
    for _ in range(700):  # anything next to anything
        out.append("".join(rng.choice(rng.choice(everything)) for _ in range(rng.randint(2, 9))))
    words = [w for s in SCRIPTS + ENGLISH for w in s.split()]
    for _ in range(250):
        out.append("".join(rng.choice(words) + rng.choice(SPACES[:9]) for _ in range(rng.randint(1, 12))))
    # Characters that have long been assigned: libraries of any age agree about them.
    old = [chr(c) for c in range(0x20, 0x30000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")
           and unicodedata.ucd_3_2_0.category(chr(c)) == unicodedata.category(chr(c))]
    for _ in range(400):
        out.append("".join(rng.choice(old) for _ in range(rng.randint(1, 24))))
    for _ in range(200):  # one part of Unicode each
        at = rng.randrange(len(old) - 200)
        out.append("".join(rng.choice(old[at:at + 200]) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 30))))
    return list(dict.fromkeys(out))


def like_llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    added = [AddedToken(s, special=True, normalized=False) for s in special]
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 4000)])])
    return t, added


def like_qwen2():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    t.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    added = [AddedToken(s, special=True, normalized=False) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    added += [AddedToken(s, special=False, normalized=False) for s in ("<tool_call>", "</tool_call>")]
    added += [AddedToken("ti\u1ebfngtag", special=False, normalized=True)]
    return t, added


def train(t, added, texts, path, whole_words=()):
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=4000 - len(whole_words), show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    data = json.loads(t.to_str())
    for word in whole_words:  # ids that no merge leads to
        data["model"]["vocab"].setdefault(word, len(data["model"]["vocab"]))
    t = Tokenizer.from_str(json.dumps(data))
    t.add_tokens(added)
    t.save(str(path), pretty=False)


def pack(path):
    subprocess.run(["zstd", "-19", "-q", "-f", "--rm", path], check=True)


def main(tokenizers, out):
    texts = strings()
    like, added = like_llama3()
    train(like, added, texts, out / "llama3.json", ["Ġlazy", "Ġhonorific", "是不是", "Boxk"])
    like, added = like_qwen2()
    train(like, added, texts, out / "qwen2.json")
    for name, folder in (("gpt2", "gpt2"), ("gpt_neox", "gpt_neox_20b")):
        (out / f"{name}.json").write_bytes((tokenizers / folder / "tokenizer.json").read_bytes())
    (out / "strings.jsonl").write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in texts))
    for name in ("gpt2", "gpt_neox", "llama3", "qwen2"):
        t = Tokenizer.from_file(str(out / f"{name}.json"))
        lines = []
        for text in texts:
            t.encode_special_tokens = False
            line = {"ids": t.encode(text, add_special_tokens=False).ids}
            decoded = t.decode(line["ids"], skip_special_tokens=True)
            if decoded != text:
                line["decoded"] = decoded
            t.encode_special_tokens = True  # as text
            plain = t.encode(text, add_special_tokens=False).ids
            if plain != line["ids"]:
                line["plain"] = plain
            lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
        (out / f"{name}.ids.jsonl").write_text("\n".join(lines) + "\n")
        pack(out / f"{name}.ids.jsonl")
        pack(out / f"{name}.json")
    pack(out / "strings.jsonl")
    print(len(texts), "strings")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
