"""A WordNet of a few nouns, in Princeton's file format."""

from pathlib import Path

# key: its lemmas, what it is a kind of; a lemma's senses are in this order
NOUNS: dict[str, tuple[list[str], list[str]]] = {
    "entity": (["entity"], []),
    "usage": (["slur"], ["entity"]),
    "device": (["device"], ["entity"]),
    "poet": (["Crane", "Hart_Crane"], ["@i entity"]),
    "gryphon": (["gryphon", "griffon"], ["entity"]),
    "plaything": (["plaything", "toy"], ["device"]),
    "hoist": (["crane", "derrick_crane"], ["device"]),
    "animal": (["animal", "beast"], ["entity"]),
    "canine": (["canine"], ["animal"]),
    "dog": (["dog", "domestic_dog"], ["canine"]),
    "puppy": (["puppy"], ["dog"]),
    "griffon": (["griffon", "Brussels_griffon"], ["dog"]),
    "toy_dog": (["toy_dog", "toy"], ["dog"]),
    "spaniel": (["spaniel"], ["dog"]),
    "toy_spaniel": (["toy_spaniel"], ["spaniel", "toy_dog"]),
    "cur": (["cur"], ["dog", ";u usage"]),
    "bird": (["bird"], ["animal"]),
    "wader": (["crane", "wading_crane"], ["bird"]),
    "owl": (["owl"], ["bird"]),
    "car": (["car", "automobile", "motorcar"], ["device"]),
    "taxi": (["taxi"], ["car"]),
    "boat": (["boat"], ["device"]),
    "ferry": (["ferry"], ["boat"]),
    "amphibian": (["amphicar"], ["boat", "car"]),
    "train": (["train", "railroad_train"], ["device"]),
    "boat_train": (["boat_train"], ["train"]),
}
INVERSE = {"@": "~", "@i": "~i", ";u": "-u"}


def write(folder: Path) -> Path:
    """The files that nltk reads and Debian's package has."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("adj", "adv", "verb", "noun"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            (folder / name).write_text("")
    (folder / "noun.exc").write_text("puppys puppy\n")
    (folder / "data.adj").write_text("  1 WordNet 3.0 Copyright of nobody\n")
    pointers: dict[str, list[tuple[str, str]]] = {key: [] for key in NOUNS}
    for key, (_, above) in NOUNS.items():
        for of in above:
            symbol, other = of.split() if " " in of else ("@", of)
            pointers[key].append((symbol, other))
            pointers[other].append((INVERSE[symbol], key))
    offsets: dict[str, int] = dict.fromkeys(NOUNS, 0)
    for _ in range(2):  # lines are as long whatever the offsets are
        lines, at = [], 0
        for key, (lemmas, _) in NOUNS.items():
            offsets[key] = at
            said = " ".join(f"{lemma} 0" for lemma in lemmas)
            to = "".join(f" {symbol} {offsets[of]:08d} n 0000" for symbol, of in pointers[key])
            line = f"{at:08d} 03 n {len(lemmas):02x} {said} {len(pointers[key]):03d}{to} | a {key}"
            lines.append(line + "  \n")
            at += len(lines[-1])
    (folder / "data.noun").write_text("".join(lines))
    senses: dict[str, list[int]] = {}
    for key, (lemmas, _) in NOUNS.items():
        for lemma in lemmas:
            senses.setdefault(lemma.lower(), []).append(offsets[key])
    index = [
        f"{lemma} n {len(of)} 0 {len(of)} 0 {' '.join(f'{at:08d}' for at in of)}  \n"
        for lemma, of in sorted(senses.items())
    ]
    (folder / "index.noun").write_text("".join(index))
    return folder
