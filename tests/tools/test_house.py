"""The picture of the package shows the package."""

import house


def test_the_stored_picture_is_the_one_that_the_code_draws():
    stored = house.PICTURE.read_text(encoding="utf-8")
    assert stored == house.draw(), "modules have changed: run tools/house.py"


def test_every_room_stands_above_all_rooms_that_it_uses_and_every_module_is_named():
    picture = house.draw()
    for room, modules in house.rooms().items():
        assert room == "checks" or all(module in picture for module in modules)
        assert all(house.floor(other) < house.floor(room) for other in house.used(room) if room)
