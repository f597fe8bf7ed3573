"""The picture of the package shows the package."""

import re

import house


def test_the_stored_picture_is_the_one_that_the_code_draws():
    stored = house.PICTURE.read_text(encoding="utf-8")
    assert stored == house.draw(), "modules have changed: run tools/house.py"


def test_every_room_stands_above_all_rooms_that_it_uses_and_every_module_is_named():
    picture = house.draw()
    for room, modules in house.rooms().items():
        assert room == "checks" or all(module in picture for module in modules)
        assert all(house.floor(other) < house.floor(room) for other in house.used(room) if room)


def test_no_line_of_a_room_reaches_beyond_its_walls():
    walls = re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)" rx="6".*?(?=<rect|'
                       r"<polygon)", house.draw(), flags=re.DOTALL)
    texts = re.findall(r'<text x="(\d+)" y="(\d+)" class', house.draw())
    assert len(walls) == len(house.rooms()) - 1  # the door is one; checks are under the roof
    for x, y in ((int(x), int(y)) for x, y in texts):
        left, top, _, height = max((tuple(map(int, wall)) for wall in walls
                                    if int(wall[0]) <= x and int(wall[1]) <= y), key=lambda w: w[1])
        assert top < y <= top + height - 4
