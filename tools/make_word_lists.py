"""Write the auxiliary word lists that come with the package.

    python tools/make_word_lists.py --wordnet /usr/share/wordnet --out src/transmiter_cli/task/words

nouns.txt: concrete nouns of WordNet 3.0 (Debian: wordnet-base) that occur in its tagged texts, one or two words,
    commonest first.
imagenet.txt: the class names of ImageNet as open_clip has them.
characters.txt: the names of the printed characters that the demo models know.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from open_clip import IMAGENET_CLASSNAMES

from glyphs import glyph_names

PHYSICAL_ENTITY = "00001930"
KINDS = {"05": "animal", "06": "artifact", "08": "body", "13": "food", "17": "natural object", "20": "plant"}


def read_synsets(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Each noun synset's kind, and its direct hyponyms; names of single things (instances) are left out."""
    kinds: dict[str, str] = {}
    below: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split("|")[0].split()
        offset, kind, words = fields[0], fields[1], int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        for symbol, target in zip(pointers[0::4], pointers[1::4], strict=True):
            if symbol == "@":
                below[target].append(offset)
        kinds[offset] = kind
    return kinds, below


def concrete_nouns(wordnet: Path) -> list[str]:
    """Words whose first sense is a kind of physical thing, by how often that sense occurs in tagged texts."""
    kinds, below = read_synsets(wordnet / "data.noun")
    physical, front = set(), [PHYSICAL_ENTITY]
    while front:
        offset = front.pop()
        if offset not in physical:
            physical.add(offset)
            front += below[offset]
    tagged: dict[str, int] = {}
    for line in (wordnet / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, sense, count = line.split()
        lemma, code = key.split("%")
        if code.startswith("1:") and sense == "1":
            tagged[lemma] = int(count)
    counts: dict[str, int] = {}
    for line in (wordnet / "index.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        lemma, senses = fields[0], int(fields[2])
        first, word = fields[-senses], lemma.replace("_", " ")
        plain = lemma.replace("_", "").isalpha() and len(word) > 2 and word.count(" ") < 2
        if plain and lemma in tagged and first in physical and kinds[first] in KINDS:
            counts[word] = tagged[lemma]
    return sorted(counts, key=lambda word: (-counts[word], word))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lists = {
        "nouns": concrete_nouns(options.wordnet),
        "imagenet": list(dict.fromkeys(IMAGENET_CLASSNAMES)),
        "characters": [
            name for char, names in glyph_names().items() for name in (names[:1] if char.isdigit() else names)
        ],
    }
    for name, words in lists.items():
        (options.out / f"{name}.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        print(f"{name}: {len(words)} words")


if __name__ == "__main__":
    main()
