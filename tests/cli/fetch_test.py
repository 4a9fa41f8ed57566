"""`oryx eval fetch`: small made-up originals in every published format, and what is said when something is amiss."""
import json
import unittest

from oryx_case import OryxCase

ARC = {"id": "Q1", "question": {"stem": "What burns?", "choices": [{"text": "wood", "label": "A"},
                                                                   {"text": "stone", "label": "B"}]}, "answerKey": "B"}

ORIGINALS = {
    "lambada_test.jsonl": [{"text": "He went home\nto his old house"}],
    "hellaswag_val.jsonl": [
        {"ind": 4, "activity_label": "Roofs", "ctx_a": "A man sits.", "ctx_b": "he LOOKS", "ctx": "A man sits. he LOOKS",
         "endings": ["up.", "down.", "in.", "out."], "label": 3},
        {"activity_label": "Cooking", "ctx_a": "[header] How", "ctx_b": "", "endings": ["a", "b", "c", "d"], "label": 0}],
    "piqa/valid.jsonl": [{"goal": "Open a jar", "sol1": "turn", "sol2": "shout"}, {"goal": "g", "sol1": "a", "sol2": "b"}],
    "piqa/valid-labels.lst": "1\n0\n",
    "ARC-V1/ARC-Easy/ARC-Easy-Test.jsonl": [ARC],
    "ARC-V1/ARC-Challenge/ARC-Challenge-Test.jsonl": [ARC | {"id": "Q2"}],
    "OpenBookQA-V1/Data/Main/test.jsonl": [ARC | {"id": "9-1"}],
    "winogrande_1.1/dev.jsonl": [
        {"qID": "x", "sentence": "Sarah met Mary so _ was glad.", "option1": "Sarah", "option2": "Mary", "answer": "2"},
        {"qID": "y", "sentence": "They saw the \"_'s hat.", "option1": "cat", "option2": "dog", "answer": "1"}],
    "blimp/data/island.jsonl": [{"sentence_good": "Who left?", "sentence_bad": "Left who?", "field": "syntax",
                                 "linguistics_term": "island_effects", "UID": "island", "pairID": "0"}],
    "blimp/data/verb.jsonl": [{"sentence_good": "I see.", "sentence_bad": "I sees.", "field": "morphology",
                               "linguistics_term": "agreement", "UID": "verb", "pairID": "0"}],
    "dev-v1.1.json": {"data": [{"title": "Town", "paragraphs": [{"context": "It has 3 mills.", "qas": [
        {"id": "s1", "question": "How many mills?", "answers": [{"text": "3", "answer_start": 7}, {"text": "3 mills"},
                                                                {"text": "3"}]}]}]}]},
    "NQ-open.dev.jsonl": [{"question": "who wrote it", "answer": ["Ann", "Ann Lee"]}],
    "triviaqa/unfiltered-web-dev.json": {"Data": [{"Question": "A small deer?", "QuestionId": "t1", "Answer": {
        "Value": "Dik-dik", "Aliases": ["Madoqua", "Dik-dik"], "NormalizedValue": "dik dik"}}]},
    "drop_dataset_dev.json": {"nfl_1": {"passage": "Two men ran.", "qa_pairs": [
        {"query_id": "d1", "question": "How many?", "answer": {"number": "2", "date": {"day": "", "month": "", "year": ""},
                                                               "spans": []},
         "validated_answers": [{"number": "", "date": {}, "spans": ["two men", "both"]}]},
        {"query_id": "d2", "question": "When?", "answer": {"number": "", "date": {"day": "7", "month": "May", "year": "1901"},
                                                           "spans": []}}]}},
    "wikitext-2-raw/wiki.test.raw": " = Title = \n Some text , @-@ .\n",
}

EXPECTED = {
    "lambada/lambada_openai_test.jsonl": [
        {"id": "lambada-0", "context": "He went home\nto his old", "question": "", "answers": ["house"]}],
    "hellaswag/hellaswag_val.jsonl": [
        {"id": "hellaswag-0", "context": "Roofs: A man sits. He looks", "choices": ["up.", "down.", "in.", "out."],
         "answer": 3},
        {"id": "hellaswag-1", "context": "Cooking: [header] How", "choices": ["a", "b", "c", "d"], "answer": 0}],
    "piqa/piqa_valid.jsonl": [{"id": "piqa-0", "context": "Open a jar", "choices": ["turn", "shout"], "answer": 1},
                              {"id": "piqa-1", "context": "g", "choices": ["a", "b"], "answer": 0}],
    "arc_easy/arc_easy_test.jsonl": [{"id": "Q1", "context": "What burns?", "choices": ["wood", "stone"], "answer": 1}],
    "arc_challenge/arc_challenge_test.jsonl": [
        {"id": "Q2", "context": "What burns?", "choices": ["wood", "stone"], "answer": 1}],
    "openbookqa/openbookqa_test.jsonl": [
        {"id": "9-1", "context": "What burns?", "choices": ["wood", "stone"], "answer": 1}],
    "winogrande/winogrande_xl_dev.jsonl": [
        {"id": "winogrande-0", "context": "Sarah met Mary so", "choices": ["Sarah", "Mary"], "continuation": "was glad.",
         "answer": 1},
        {"id": "winogrande-1", "context": "They saw the", "choices": ['"cat', '"dog'], "continuation": "'s hat.",
         "answer": 0}],
    "blimp/blimp.jsonl": [
        {"id": "island-0", "context": "", "choices": ["Who left?", "Left who?"], "answer": 0, "uid": "island",
         "field": "syntax", "term": "island_effects"},
        {"id": "verb-0", "context": "", "choices": ["I see.", "I sees."], "answer": 0, "uid": "verb",
         "field": "morphology", "term": "agreement"}],
    "squad/squad_v1_dev.jsonl": [{"id": "s1", "title": "Town", "context": "It has 3 mills.", "question": "How many mills?",
                                  "answers": ["3", "3 mills"]}],
    "nq_open/nq_open_dev.jsonl": [
        {"id": "nq-0", "context": "", "question": "who wrote it", "answers": ["Ann", "Ann Lee"]}],
    "triviaqa/triviaqa_dev.jsonl": [
        {"id": "t1", "context": "", "question": "A small deer?", "answers": ["Dik-dik", "Madoqua"]}],
    "drop/drop_dev.jsonl": [
        {"id": "d1", "context": "Two men ran.", "question": "How many?", "answers": ["2", "two men, both"]},
        {"id": "d2", "context": "Two men ran.", "question": "When?", "answers": ["7 May 1901"]}],
}


class Fetch(OryxCase):
    def originals(self, *left_out, **other):
        for name, content in (ORIGINALS | other).items():
            if name not in left_out:
                lines = isinstance(content, list)
                self.write(f"from/{name}", content if isinstance(content, str) else
                           "".join(json.dumps(x) + "\n" for x in content) if lines else json.dumps(content))

    def test_every_set(self):
        self.originals()
        result = self.ok_json("eval", "fetch", "from", "--out", "to")
        for name, records in EXPECTED.items():
            written = (self.dir / "to" / name).read_text()
            self.assertEqual([json.loads(line) for line in written.split("\n")[:-1]], records, name)
            self.assertEqual(result[name.split("/")[0]]["examples"], len(records))
        self.assertEqual((self.dir / "to/wikitext/wikitext2_test.txt").read_text(),
                         ORIGINALS["wikitext-2-raw/wiki.test.raw"])
        self.assertEqual(len(result), len(EXPECTED) + 1)

    def test_what_is_there(self):
        self.write("from/NQ-open.dev.jsonl", json.dumps(ORIGINALS["NQ-open.dev.jsonl"][0]))
        result = self.ok_json("eval", "fetch", "from", "--out", "to")
        self.assertEqual(result["nq_open"]["examples"], 1)
        self.assertEqual(result["squad"], {"missing": "dev-v1.1.json"})
        self.assertIn("not there: dev-v1.1.json", self.ok("eval", "fetch", "from", "--out", "to"))

    def test_what_is_missing_or_wrong(self):
        fetch = ("eval", "fetch", "from", "--out", "to")
        self.bad(["from", "cannot be read"], *fetch)
        self.write("from/notes.txt", "nothing")
        self.bad(["none of the originals", "lambada_test.jsonl"], *fetch)
        self.originals("piqa/valid-labels.lst")
        self.bad("valid-labels.lst: no such file", *fetch)
        self.bad(["no set 'squadd'", "did you mean 'squad'"], *fetch, "--sets", "squadd")
        self.ok(*fetch, "--sets", "squad,drop")
        self.originals("dev-v1.1.json", **{"piqa/valid-labels.lst": "1\n"})
        (self.dir / "from/dev-v1.1.json").unlink()
        self.bad(["squad is not there", "dev-v1.1.json"], *fetch, "--sets", "squad")
        self.bad(["valid.jsonl:2", "only 1 labels"], *fetch, "--sets", "piqa")
        self.write("from/lambada_test.jsonl", '{"text": "one"}\n')
        self.bad(["lambada_test.jsonl:1", "a space and a word"], *fetch, "--sets", "lambada")
        self.write("from/lambada_test.jsonl", '{"text": "a b"}\n{"txt": "a b"}\n')
        self.bad(["lambada_test.jsonl:2", "'text'"], *fetch, "--sets", "lambada")
        self.write("from/NQ-open.dev.jsonl", '{"question": "q", "answer": "one"}\n')
        self.bad(["NQ-open.dev.jsonl:1", "'answer'"], *fetch, "--sets", "nq_open")
        self.write("from/again/drop_dataset_dev.json", "{}")
        self.bad(["drop is there twice", "again"], *fetch, "--sets", "drop")


if __name__ == "__main__":
    unittest.main()
