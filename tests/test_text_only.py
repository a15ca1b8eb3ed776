"""The benchmark of text alone: what is compared with what."""

from benchmark_scripts import script

text_only = script("text_only")


def test_each_case_has_its_base(text_only):
    names = [
        "cross-entropy, one word of each class, 500",
        "ignore, one word of each class, 500",
        "cross-entropy, 500",
        "ignore, 500",
        "ignore, ranked alone, 500",
        "cross-entropy, masks as a judge sees them, 500",
        "exact masks of real mosaics, 500",
        "cross-entropy, 8000 of 3 seeds",
        "co-training, 8000 of 3 seeds",
    ]
    bases = [text_only.compared_with(name, names) for name in names]
    assert bases == [
        "cross-entropy, 500",
        "ignore, 500",
        "",
        "cross-entropy, 500",
        "ignore, 500",
        "cross-entropy, 500",
        "cross-entropy, 500",
        "cross-entropy, 500",
        "cross-entropy, 8000 of 3 seeds",
    ]
    assert text_only.compared_with("ignore, 500", ["ignore, 500"]) == ""
