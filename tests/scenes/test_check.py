"""The dataset check finds every planted defect of JAAD, and nothing else."""

import json
import re
from dataclasses import asdict

import pytest
from make import tiny

from vidreason.cli import main
from vidreason.core.errors import DataError
from vidreason.scenes.check import KINDS, Finding, check
from vidreason.scenes.jaad import FOLDERS, SPLITS, annotation_path, read_jaad

VIDEO = tiny.VIDEO
LISTS = ("train", "val", "test")
BOXES, ABOUT = f"annotations/{VIDEO}.xml", f"annotations_attributes/{VIDEO}_attributes.xml"
APPEARANCE = f"annotations_appearance/{VIDEO}_appearance.xml"


@pytest.fixture(scope="module")
def clean(tiny_root):
    return check(tiny_root)


def compare(root, clean):
    """Returns the report of `root`, and its findings that `clean` lacks and lacks of `clean`."""
    report, before = check(root), clean.findings
    found = report.findings
    new, gone = [f for f in found if f not in before], [f for f in before if f not in found]
    return report, new, gone


# --- A clean copy.


def test_counts_match_the_scenes(tiny_root, clean):
    scenes = read_jaad(tiny_root)
    tracks = [(s, k, rows) for s in scenes for k, (_, rows) in enumerate(s.rows())]
    kind = {"pedestrian": 0, "bystander (ped)": 0, "group (people)": 0}
    boxes = dict(kind)
    for scene, k, rows in tracks:
        name = "pedestrian" if scene.facts["behaviour"][k] else "bystander (ped)"
        name = "group (people)" if scene.kind[k] else name
        kind[name] += 1
        boxes[name] += rows.stop - rows.start
    persons = kind["pedestrian"] + kind["bystander (ped)"]
    expected = {
        "videos": 3,
        "frames": sum(s.length for s in scenes),
        **{f"tracks {name}": count for name, count in kind.items()},
        "tracks": len(tracks),
        **{f"boxes {name}": count for name, count in boxes.items()},
        "boxes": sum(len(s.frame) for s in scenes),
        "tracks with gaps": 0,
        "videos without tracks": 0,
        "videos without behaviour pedestrian": 0,
        "persons": persons,
        "persons with appearance in every box": persons,
        "boxes tagged crossing": sum(int((s.labels["cross"] == 1).sum()) for s in scenes),
        "pedestrians who cross": sum(int((s.facts["crossing"] == 1).sum()) for s in scenes),
        "videos of 1920x1080": 3,
        **{f"videos in {subset}/{split}": 1 for subset in SPLITS for split in LISTS},
    }
    assert clean.counts == expected and min(kind.values()) > 0
    assert clean.root == str(tiny_root) and not clean.broken


def test_a_clean_copy_has_only_known_properties_of_jaad(clean):
    # Bystanders have scrambled ids; pedestrians first seen on the road have no crossing point.
    assert {f.kind for f in clean.findings} == {"appearance id", "no crossing point"}


# --- Planted defects.


def fact(name, value, pedestrian="0_2_2b", video=VIDEO):
    def plant(root):
        pattern = f'({name}=")[^"]*(?="[^>]* id="{pedestrian}")'
        tiny.edit(root, "annotations_attributes", pattern, rf"\g<1>{value}", video)

    return plant


def box_of(pedestrian, frame, name, value):
    """Sets a coordinate of one box."""

    def plant(root):
        path = annotation_path(root, "annotations", VIDEO)
        tracks = path.read_text().split("<track ")
        (i,) = (i for i, t in enumerate(tracks) if f'name="id">{pedestrian}<' in t)
        pattern = rf'(<box frame="{frame}" [^>]*{name}=")[^"]*'
        tracks[i], found = re.subn(pattern, rf"\g<1>{value}", tracks[i])
        assert found == 1
        path.write_text("<track ".join(tracks))

    return plant


def remove_tracks(root):
    for folder, tag in (
        ("annotations", "track"),
        ("annotations_attributes", "pedestrian"),
        ("annotations_appearance", "track"),
    ):
        tiny.edit(root, folder, f"<{tag} .*</{tag}>|<{tag} .*/>", "")


def remove_flags(old_id, frame):
    def plant(root):
        path = annotation_path(root, "annotations_appearance", VIDEO)
        tracks = path.read_text().split("<track ")
        (i,) = (i for i, t in enumerate(tracks) if f'old_id="{old_id}"' in t)
        tracks[i], found = re.subn(rf'<box [^>]*frame="{frame}"[^>]*/>', "", tracks[i])
        assert found == 1
        path.write_text("<track ".join(tracks))

    return plant


def rename(root):
    tiny.edit(root, "annotations_appearance", '(?<= id=")0_2_2b', "0_2_9b")


FIRST = "annotations_attributes/video_0001_attributes.xml"
PEDESTRIAN = "pedestrian 0_2_2b"
# Kind, how to plant it, file, place, values seen. The pedestrian crosses from frame 76 on.
PLANTED = [
    ("outside", box_of("0_2_2b", 5, "xbr", 1921), BOXES, "track 0_2_2b, frame 5", "1921.0"),
    ("outside", box_of("0_2_1", 7, "ytl", -0.5), BOXES, "track 0_2_1, frame 7", "-0.5"),
    ("no crossing point", fact("crossing_point", -1), ABOUT, PEDESTRIAN, "first .* is 76"),
    ("crossing point off", fact("crossing_point", 82), ABOUT, PEDESTRIAN, "82, .* crossing 76"),
    ("crossing point off", fact("crossing_point", 70), ABOUT, PEDESTRIAN, "70, .* crossing 76"),
    (
        "crossing point of a non-crosser",
        fact("crossing_point", 120, "0_1_3b", "video_0001"),
        FIRST,
        "pedestrian 0_1_3b",
        "120",
    ),
    (
        "non-crosser without point",
        fact("crossing_point", -1, "0_1_2b", "video_0001"),
        FIRST,
        "pedestrian 0_1_2b",
        "-1",
    ),
    ("non-crosser crosses", fact("crossing", 0), ABOUT, PEDESTRIAN, "crossing 0, .* from 76"),
    ("late decision", fact("decision_point", 77), ABOUT, PEDESTRIAN, "decision 77, crossing 76"),
    ("appearance id", rename, APPEARANCE, "track 0_2_2b", "id 0_2_9b, .* belongs to track 0_2_2b"),
    ("no appearance", remove_flags("pedestrian2", 9), BOXES, "track 0_2_2b", "unknown"),
    ("no appearance", remove_flags("ped4", 9), BOXES, "track 0_2_4", "unknown"),
]


@pytest.mark.parametrize(
    ("kind", "plant", "file", "place", "seen"), PLANTED, ids=[f"{p[0]} {p[3]}" for p in PLANTED]
)
def test_only_the_planted_defect_is_found(copy, clean, kind, plant, file, place, seen):
    plant(copy)
    report, new, gone = compare(copy, clean)
    assert [(f.kind, f.file, f.place) for f in new] == [(kind, file, place)] and not gone
    assert re.search(seen, new[0].seen)
    assert not report.broken


@pytest.mark.parametrize(
    "plant",
    [fact("crossing_point", 81), fact("crossing_point", 71), fact("decision_point", 76)]
    + [box_of("0_2_2b", 5, "xbr", 1920), box_of("0_2_2b", 5, "ytl", 0)],
)
def test_values_at_the_limit_are_no_defect(copy, clean, plant):
    # An early decision, so that no crossing point precedes it.
    fact("decision_point", 10)(copy)
    plant(copy)
    _, new, gone = compare(copy, clean)
    assert not new and not gone


@pytest.mark.parametrize("last", [100, 104])
def test_gaps_are_found_in_every_track_with_later_boxes(copy, clean, last):
    tiny.gap(copy, first=100, last=last)
    report, new, gone = compare(copy, clean)
    scene = read_jaad(copy)[1]
    names = [n for n, rows in scene.rows() if scene.frame[rows.start] < 100]
    seen = f"frame 99 is followed by {last + 1}"
    assert new == [Finding("gap", BOXES, f"track {name}", seen) for name in names] and not gone
    assert len(names) > 5 and report.counts["tracks with gaps"] == len(names)


def test_a_video_without_tracks_is_found(copy, clean):
    remove_tracks(copy)
    report, new, gone = compare(copy, clean)
    assert new == [Finding("no tracks", BOXES, "", "124 frames")]
    assert gone == [f for f in clean.findings if VIDEO in f.file]
    counts = report.counts
    assert counts["videos without tracks"] == counts["videos without behaviour pedestrian"] == 1


# --- Incomplete and damaged copies.


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_missing_file_is_found_and_the_rest_is_read(copy, clean, folder):
    path = tiny.remove_file(copy, folder)
    report, new, gone = compare(copy, clean)
    file = str(path.relative_to(copy))
    assert new[0] == Finding("missing", file, "", "no such file")
    lists = [f"split_ids/{subset}/val.txt" for subset in SPLITS if folder == "annotations"]
    assert [(f.kind, f.file) for f in new[1:]] == [("split", path) for path in lists]
    # Findings about the missing file are gone, and without boxes all those of the video.
    assert all(f.file == file or folder == "annotations" and VIDEO in f.file for f in gone)
    assert report.broken and report.counts["videos"] == 3
    frames = report.counts["frames"] < clean.counts["frames"]
    assert frames == (folder == "annotations")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_missing_folder_is_found_for_every_video(copy, clean, folder):
    tiny.remove_kind(copy, folder)
    _, new, _ = compare(copy, clean)
    suffix = FOLDERS[folder]
    missing = [f"{folder}/{video}{suffix}.xml" for video in tiny.VIDEOS]
    assert [f.file for f in new if f.kind == "missing"] == missing
    assert {f.kind for f in new} == {"missing"} | ({"split"} if folder == "annotations" else set())


def test_one_kind_of_file_is_enough(copy):
    for folder in list(FOLDERS)[:-1]:
        tiny.remove_kind(copy, folder)
    report = check(copy)
    assert report.broken and report.counts["videos"] == 3
    assert {f.kind for f in report.findings} == {"missing", "split"}
    tiny.remove_kind(copy, "annotations_vehicle")
    with pytest.raises(DataError, match="contains no annotations; set --root to their parent"):
        check(copy)
    with pytest.raises(DataError, match="no such folder; download it with"):
        check(copy / "no")


@pytest.mark.parametrize("fault", ["truncate", "doctype"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_an_unreadable_file_is_found(copy, clean, fault, folder):
    path = tiny.FAULTS[fault](copy, folder)
    report, new, gone = compare(copy, clean)
    assert [(f.kind, f.file) for f in new] == [("unreadable", str(path.relative_to(copy)))]
    problem = {"truncate": "not well-formed XML", "doctype": "DOCTYPE"}[fault]
    assert problem in new[0].seen and (new[0].place != "") == (fault == "truncate")
    assert all(VIDEO in f.file for f in gone)
    assert report.broken and report.counts["frames"] < clean.counts["frames"]


@pytest.mark.parametrize(
    ("fault", "place", "seen"),
    [
        ("unknown_tag", "track 0_2_1b, frame 56", "look='winking'"),
        (
            "degenerate_box",
            "track 0_2_1b, frame 56",
            "box must have xtl < xbr and ytl < ybr, got xtl=",
        ),
    ],
)
def test_invalid_content_is_found(copy, clean, fault, place, seen):
    tiny.FAULTS[fault](copy)
    _, new, _ = compare(copy, clean)
    assert [(f.kind, f.file, f.place) for f in new] == [("unreadable", BOXES, place)]
    assert seen in new[0].seen


@pytest.mark.parametrize("subset", SPLITS)
def test_a_split_list_with_a_missing_video_is_found(copy, clean, subset):
    tiny.stray_video(copy, subset)
    report, new, gone = compare(copy, clean)
    file = f"split_ids/{subset}/train.txt"
    seen = "lists 'video_9999', which has no annotations"
    assert (new, gone) == ([Finding("split", file, "line 2", seen)], [])
    assert report.broken


# --- The command.


def test_the_exit_code_tells_whether_a_copy_is_broken(copy, clean, capsys):
    line = ["data", "check", "jaad", "--root", str(copy)]
    assert main(line) == 0
    out = capsys.readouterr().out
    for kind, text in KINDS.items():
        count = sum(f.kind == kind for f in clean.findings)
        assert re.search(rf"^ +{count}  {kind}: {re.escape(text[:20])}", out, re.M), kind
    extra = sum(f.kind == "appearance id" for f in clean.findings) - 3
    assert f"… and {extra} more; --json lists all" in out
    tiny.truncate(copy)
    assert main(line) == 1
    assert "not well-formed" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_the_command_prints_all_findings_as_json(copy, clean, capsys):
    assert main(["data", "check", "jaad", "--root", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(clean) | {"root": str(copy)}


# --- The real dataset.


@pytest.mark.slow
def test_real_defects(real_root):
    report = check(real_root)
    found = {kind: sum(f.kind == kind for f in report.findings) for kind in KINDS}
    assert found == {
        "missing": 0,
        "unreadable": 0,
        "split": 0,
        "gap": 19,
        "outside": 1,
        "no tracks": 9,
        "no crossing point": 167,
        "crossing point off": 48,
        "crossing point of a non-crosser": 2,
        "non-crosser without point": 4,
        "non-crosser crosses": 29,
        "late decision": 125,
        "appearance id": 1_827,
        "no appearance": 0,
    }
    counts = report.counts
    assert (counts["videos"], counts["frames"], counts["boxes"]) == (346, 82_032, 391_038)
    assert counts["persons with appearance in every box"] == counts["persons"] == 2_703
    assert counts["videos without behaviour pedestrian"] == 26 and not report.broken
