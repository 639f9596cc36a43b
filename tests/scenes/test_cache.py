"""The cache of scenes is complete, and never used when stale or damaged."""

import random
import re
import warnings
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import scenes as made
from make import tiny

from vidreason.scenes import jaad
from vidreason.scenes.cache import cached, content_key
from vidreason.scenes.jaad import FOLDERS, annotation_path, read_jaad, read_video

VIDEO = tiny.VIDEO


def cache_file(root):
    return root / ".vidreason" / "scenes.npz"


def test_a_second_read_uses_the_cache(copy, monkeypatch):
    first = read_jaad(copy)
    made.assert_same(first, read_jaad(copy, cache=False))
    made.assert_same(first, [read_video(copy, video) for video in tiny.VIDEOS])
    monkeypatch.setattr(jaad, "read_video", None)
    made.assert_same(read_jaad(copy), first)


@pytest.mark.parametrize("seed", range(3))
def test_scenes_round_trip_through_the_cache(tmp_path, seed):
    scenes = [made.scene(seed, i, tracks) for i, tracks in enumerate([0, 3, 0, 1, 5, 0])]
    cached(tmp_path / "c.npz", "key", lambda: scenes)
    made.assert_same(cached(tmp_path / "c.npz", "key", lambda: []), scenes)
    assert cached(tmp_path / "c.npz", "other", lambda: scenes[:1]) == scenes[:1]


@settings(max_examples=25)
@given(data=st.data())
def test_the_key_changes_with_every_byte_and_name(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("key")
    paths = []
    for i in range(4):
        paths.append(folder / "ab"[i % 2] / f"{i // 2}")
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].write_bytes(data.draw(st.binary(max_size=4)))
    key = content_key(paths[:3], paths[3:])
    assert content_key(paths[:3], paths[3:]) == key
    changed = data.draw(st.sampled_from(paths))
    before = changed.read_bytes()
    after = data.draw(st.binary(max_size=4).filter(lambda b: b != before))
    changed.write_bytes(after)
    assert content_key(paths[:3], paths[3:]) != key
    changed.write_bytes(before)
    assert content_key(paths[:3], paths[3:]) == key
    assert content_key(paths[:2], paths[3:]) != key
    assert content_key([*paths[:2], paths[2].rename(folder / "a" / "new")], paths[3:]) != key


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_change_in_any_file_invalidates_the_cache(copy, folder):
    first = read_jaad(copy)
    for pattern, replacement in (
        ('age="[a-z]*"', 'age="child"'),
        ('backpack="[01]"', 'backpack="1"'),
        ('light="[a-z/]*"', 'light="n/a"'),
        ('action="[a-z_]*"', 'action="moving_slow"'),
        ('xtl="[^"]*"', 'xtl="0.5"'),
    ):
        if re.search(pattern, annotation_path(copy, folder, VIDEO).read_text()):
            tiny.edit(copy, folder, pattern, replacement, count=0)
            break
    second = read_jaad(copy)
    made.assert_same(second, read_jaad(copy, cache=False))
    with pytest.raises(AssertionError):
        made.assert_same(first, second)


def test_a_damaged_cache_is_never_used(tiny_root, tmp_path):
    scenes = read_jaad(tiny_root, cache=False)
    path = tmp_path / "scenes.npz"
    cached(path, "key", lambda: scenes)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        # Headers of the archive and of its arrays, the central directory, and some data.
        starts = [member.header_offset for member in archive.infolist()]
        places = {i for start in starts for i in range(start, start + 250)}
        places |= {*range(archive.start_dir, len(good)), *range(0, len(good), 1999)}
    rng = random.Random(0)
    chosen = rng.sample(sorted(p for p in places if p < len(good)), 60)
    shapes = [match.span() for match in re.finditer(rb"(?<='shape': \()[0-9, ]+", good)]
    assert len(shapes) > 8
    chosen += [i for span in shapes for i in range(*span) if good[i : i + 1].isdigit()]
    read_again = 0
    for place in chosen:
        damaged = bytearray(good)
        damaged[place] ^= rng.choice([1, 8, 64, 255])
        path.write_bytes(damaged)
        again = []
        found = cached(path, "key", lambda again=again: again.append(1) or scenes)
        made.assert_same(found, scenes)
        read_again += bool(again)
    for size in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        assert cached(path, "key", lambda: scenes) is scenes
    assert read_again > 30


def test_a_damaged_cache_is_replaced(copy):
    first = read_jaad(copy)
    cache_file(copy).write_bytes(b"PK\x03\x04 damaged")
    made.assert_same(read_jaad(copy), first)
    assert cache_file(copy).stat().st_size > 10_000


def test_an_unwritable_root_only_causes_a_warning(copy):
    (copy / ".vidreason").write_text("in the way")  # root may write to read-only folders
    with pytest.warns(UserWarning, match=r"scenes\.npz: cache not written \(.+\)$"):
        scenes = read_jaad(copy)
    made.assert_same(scenes, read_jaad(copy, cache=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_jaad(copy, cache=False)
