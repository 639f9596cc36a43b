"""Invalid JAAD files: one line that names file, place, problem and fix."""

import re

import pytest
from make import tiny

from vidreason.core.errors import DataError
from vidreason.scenes import cvat
from vidreason.scenes.jaad import FOLDERS, annotation_path, read_jaad, read_splits, read_video

VIDEO = tiny.VIDEO
CACHE = ".vidreason/scenes.npz"


def assert_rejected(read, source, place, problem):
    with pytest.raises(DataError) as raised:
        read()
    error = raised.value
    assert error.source == str(source)
    assert re.fullmatch(place, error.place), error
    assert re.search(problem, error.problem), error
    assert re.search("restore|fix|download", error.fix), error
    text = str(error)
    assert text.isprintable() and text.startswith(f"{source}: "), text
    assert error.place in text and error.problem in text and error.fix in text


def test_rejects_a_missing_root(tmp_path):
    assert_rejected(lambda: read_jaad(tmp_path / "no"), tmp_path / "no", "", "no such folder")


@pytest.mark.parametrize("folder", FOLDERS)
def test_rejects_missing_files_and_folders(copy, folder):
    path = tiny.remove_file(copy, folder)
    if folder == "annotations":
        assert [scene.id for scene in read_jaad(copy)] == ["video_0001", "video_0003"]
    else:
        assert_rejected(lambda: read_jaad(copy), path, "", "no such file")
    assert_rejected(lambda: read_video(copy, VIDEO), path, "", r"cannot be read \(No such file")
    assert_rejected(
        lambda: read_jaad(copy), tiny.remove_kind(copy, folder), "", "folder is missing"
    )


def test_rejects_a_root_without_videos(copy):
    for path in (copy / "annotations").iterdir():
        path.unlink()
    assert_rejected(lambda: read_jaad(copy), copy / "annotations", "", r"contains no video_\*\.xml")


@pytest.mark.parametrize("folder", FOLDERS)
def test_rejects_invalid_xml(copy, folder, monkeypatch):
    path = annotation_path(copy, folder, VIDEO)
    whole = path.read_bytes()

    def read():
        return read_video(copy, VIDEO)

    options = {"read": read, "source": path}
    tiny.truncate(copy, folder)
    assert_rejected(**options, place=r"line 1, column \d+", problem="not well-formed XML")
    path.write_bytes(whole)
    tiny.doctype(copy, folder)
    assert_rejected(**options, place="", problem="has a DOCTYPE")
    path.write_bytes(b"")
    assert_rejected(**options, place="", problem="is empty")
    path.write_bytes(b"<?xml version='1.0' encoding='klingon'?>" + whole)
    assert_rejected(**options, place="", problem="unsupported encoding .*klingon")
    path.write_bytes(whole + b"\xff")
    assert_rejected(**options, place=r"line 1, column \d+", problem="not well-formed XML")
    path.write_bytes(whole)
    monkeypatch.setattr(cvat, "MAX_BYTES", 100)
    path = annotation_path(copy, "annotations", VIDEO)
    assert_rejected(read=read, source=path, place="", problem="larger than")


BOX = r"track 0_2_1b, frame 56"
EMPTY = "box must have xtl < xbr and ytl < ybr, got xtl="
APPEARANCE_TRACK = "track 0_2_1b"
BAD = {
    "label": ("", '(?<=label=")pedestrian', "person", "track 1", "'person' is not one of ped"),
    "tag": ("", '(?<=name="look">)[^<]*', "winking", BOX, "look='winking' is not one of not-l"),
    "tag missing": ("", '<attribute name="cross">[^<]*</attribute>', "", BOX, "cross='.missing"),
    "occlusion": (
        "",
        '(?s)(label="ped".*?name="occlusion">)[^<]*',
        r"\1half",
        "track 0_2_1, frame 0",
        "occlusion='half'",
    ),
    "no width": ("", 'xbr="[^"]*" xtl="([^"]*)"', r'xbr="\1" xtl="\1"', BOX, EMPTY),
    "no height": ("", 'ybr="[^"]*" ytl="([^"]*)"', r'ybr="\1" ytl="\1"', BOX, EMPTY),
    "nan": ("", '(?<=ytl=")[^"]*', "nan", BOX, "must have finite corners, got .*ytl=nan, "),
    "inf": ("", '(?<=xbr=")[^"]*', "inf", BOX, "must have finite corners, got .*xbr=inf, "),
    "word": ("", '(?<=xbr=")[^"]*', "wide", BOX, "xbr='wide' is not a number"),
    "underscore": ("", '(?<=xbr=")[^"]*', "1_900", BOX, "xbr='1_900' is not a number"),
    "digits": ("", '(?<=xbr=")[^"]*', "\u0661", BOX, "is not a number"),
    "no corner": ("", ' xtl="[^"]*"(?=[^>]*frame="56")| xtl="[^"]*"', "", "track 1", "differ"),
    "no corners": ("", ' xtl="[^"]*"', "", "", r"box must have .* has \['frame', .*'ytl'\]"),
    "twice": ("", 'frame="57"', 'frame="56"', BOX, "frames must increase"),
    "back": ("", 'frame="57"', 'frame="3"', "track 0_2_1b, frame 3", "frames must increase"),
    "beyond": (
        "",
        'frame="123"',
        'frame="124"',
        "track 0_2_1b, frame 124",
        "integer from 0 to 123",
    ),
    "before": ("", 'frame="56"', 'frame="-1"', "track 0_2_1b, frame -1", "integer from 0 to 123"),
    "fraction": ("", 'frame="56"', 'frame="56.5"', "track 0_2_1b, frame 56.5", "integer from 0"),
    "nan frame": ("", 'frame="56"', 'frame="nan"', "track 0_2_1b, frame nan", "integer from 0"),
    "two pedestrians": ("", '(?<=name="id">)0_2_1b', "0_2_9b", "track 1", "refer to 2 pedestrians"),
    "no pedestrian": (
        "",
        '(?<=label="pedestrian">).*?(?=</track>)',
        "",
        "track 1",
        "refer to 0 pedestrians",
    ),
    "nameless": ("", '(?<=name="id">)0_2_1b', "", "track 1", "refer to 2 pedestrians"),
    "same name": ("", "0_2_2b", "0_2_1b", "track 2", "duplicate track '0_2_1b'"),
    "no size": ("", "<size>.*</size>", "", "", "positive integers as size"),
    "no width of image": ("", "<width>1920<", "<width>0<", "", "size and original_size"),
    "huge size": ("", "<size>124<", f"<size>{10**12}<", "", "positive integers"),
    "fact": ("attributes", '(?<=age=")[a-z]*', "old", "pedestrian 0_2_1b", "age='old' is not"),
    "fact missing": ("attributes", 'gender="[a-z/]*"', "", "pedestrian 0_2_1b", "'.missing"),
    "fact not a number": (
        "attributes",
        '(?<=point=")[-0-9]*',
        "x",
        "pedestrian 0_2_1b",
        "'x' is not",
    ),
    "fact too large": ("attributes", '(?<=point=")[-0-9]*', "9" * 12, "pedestrian .*", "999' is"),
    "no facts": (
        "attributes",
        "<pedestrian .*/>",
        "<pedestrian />",
        "pedestrian 0_2_1b",
        "no attributes",
    ),
    "flag": ("appearance", '(?<=cap=")[01]', "2", APPEARANCE_TRACK, "cap='2' is not one of 0, 1"),
    "flag missing": ("appearance", 'hood="[01]" ', "", APPEARANCE_TRACK, "hood='.missing"),
    "flag frame": ("appearance", '(?<=frame=")56', "x", APPEARANCE_TRACK, "be increasing.*'x'"),
    "flag frame twice": ("appearance", '(?<=frame=")57', "56", APPEARANCE_TRACK, "be increasing"),
    "huge flag frame": (
        "appearance",
        '(?<=frame=")56',
        "9" * 30,
        APPEARANCE_TRACK,
        "be increasing",
    ),
    "light": ("traffic", '(id="123".*light=")[^"]*', r"\1blue", "frame 123", "traffic_light='b"),
    "sign": ("traffic", '(id="123".*ped_sign=")[01]', r"\1", "frame 123", "ped_sign='' is not"),
    "missing frame": ("traffic", '<frame id="7" [^>]*>', "", "", "123 frames, expected"),
    "order": ("traffic", 'id="7"', 'id="8"', "", "124 frames, expected frames 0 to 123 in order"),
    "ego": ("vehicle", 'action="[a-z_]*" id="9"', 'action="flying" id="9"', "frame 9", "flying"),
    "no frames": ("vehicle", "<frame .*/>", "", "", "0 frames"),
}


@pytest.mark.parametrize("name", BAD)
def test_rejects_invalid_content(copy, name):
    kind, pattern, replacement, place, problem = BAD[name]
    folder = f"annotations_{kind}" if kind else "annotations"
    count = 0 if name in ("no corners", "no facts", "same name") else 1
    path = tiny.edit(copy, folder, pattern, replacement, count=count)
    assert_rejected(lambda: read_jaad(copy), path, place, problem)
    assert not (copy / CACHE).exists()


def test_rejects_split_lists_that_contradict_the_annotations(copy):
    path = tiny.stray_video(copy)
    assert_rejected(
        lambda: read_splits(copy), path, "line 2", "'video_9999', which has no annotations"
    )
    path.write_text("video_0001\nvideo_0001\n")
    assert_rejected(
        lambda: read_splits(copy), path, "line 2", "'video_0001', which is already in train"
    )
    path.write_text("video_0001\n")
    other = path.with_name("test.txt")
    other.write_text("video_0003 video_0001")
    assert_rejected(
        lambda: read_splits(copy), other, "line 2", "'video_0001', which is already in train"
    )
    other.write_bytes(b"\xff\xfe")
    assert_rejected(lambda: read_splits(copy), other, "", "cannot be read")
    other.unlink()
    assert_rejected(lambda: read_splits(copy), other, "", "cannot be read")
