"""Tiles of copies: equal tiles for equal bits, and what is said of a tensor that has drifted."""

import torch

from course_lib.faults.diagnosis import copies
from course_lib.viz.show import show


def test_equal_bits_have_equal_tiles_and_the_rest_has_not():
    same, drifted = torch.ones(3), torch.ones(3) + 1e-6
    found = copies([{"w": same, "b": same}, {"w": drifted}, {"w": same, "b": same}])
    picture = show(found)
    tiles = [mark for mark in picture.scene.panels[0].marks if mark.focus]
    assert [tile.kind for tile in tiles] == [
        "group-0 held",
        "group-1 held",
        "group-0 held",
        "group-0 held",
        "none",
        "group-0 held",
    ]
    assert tiles[0].tip == "w on rank 0: the same bits on ranks 0, 2" and tiles[0].of == tiles[2].of != tiles[1].of
    said = [mark.text for mark in picture.scene.panels[0].marks if mark.kind == "small quiet"]
    assert said[0].startswith("furthest apart 9.5e-07") and said[1] == "all equal"
    assert str(picture) == repr(found)
