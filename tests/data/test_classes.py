"""Class sets are compared by name, wherever two meet."""

from __future__ import annotations

import pytest

from fgda_cli.data.classes import (
    CITYSCAPES,
    NAMES,
    ClassSet,
    distinct_palette,
    match_classes,
    named_classes,
    union_of,
)
from fgda_cli.runtime.errors import FgdaError

AB = named_classes(["sky", "road"])
BA = named_classes(["road", "sky"])


def test_the_same_names_in_another_order_are_reordered():
    match = match_classes(AB, BA, "model", what_theirs="data")
    assert (
        match.table()[:3].tolist() == [1, 0, 255]
        and match.shared == ("sky", "road")
        and "another order" in match.describe()
    )
    assert match_classes(AB, AB, "a", what_theirs="b").describe() is None


def test_one_set_within_the_other_is_compared_on_what_both_have():
    sixteen = named_classes([name for name in NAMES if name not in ("terrain", "truck", "train")])
    match = match_classes(sixteen, CITYSCAPES, "model", what_theirs="data")
    assert (
        match.shared == sixteen.names
        and "truth of terrain, truck, train is ignored" in match.describe()
    )
    table = match.table()
    assert all(table[NAMES.index(name)] == sixteen.names.index(name) for name in sixteen.names)
    assert table[NAMES.index("train")] == 255 and table[255] == 255
    larger = match_classes(CITYSCAPES, sixteen, "model", what_theirs="data")
    assert "predictions of terrain, truck, train count as wrong" in larger.describe()


def test_other_sets_are_refused_with_both_lists():
    with pytest.raises(FgdaError, match=r"model has sky, road\ndata has road, tree"):
        match_classes(AB, named_classes(["road", "tree"]), "model", what_theirs="data")


def test_known_names_keep_cityscapes_colours_and_new_ones_get_their_own():
    classes = named_classes(["vegetation", "shed", "road", "barn"])
    assert classes.palette[0] == (107, 142, 35) and classes.palette[2] == (128, 64, 128)
    assert len(set(classes.palette)) == 4


def test_label_ids_follow_the_names():
    assert (
        named_classes(["sky", "road"]).label_ids() == (23, 7)
        and named_classes(["sky", "shed"]).label_ids() is None
    )


def test_union_keeps_the_first_colour_of_each_name():
    own = ClassSet(("sky", "shed"), ((1, 2, 3), (4, 5, 6)))
    found = union_of([BA, own])
    assert (
        found.names == ("road", "sky", "shed")
        and found.palette[1] == (70, 130, 180)
        and found.palette[2] == (4, 5, 6)
    )


@pytest.mark.parametrize(
    "names, palette",
    [(("a", "a"), 2), (("a",), 2), ((), 0), (tuple(f"c{k}" for k in range(256)), 256)],
)
def test_class_sets_that_make_no_sense(names, palette):
    with pytest.raises(ValueError):
        ClassSet(names, distinct_palette(palette))
