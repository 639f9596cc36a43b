import pickle
import random
import re
import warnings
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import scenes as made
from make import tiny

from vidreason.core.errors import DataError
from vidreason.scenes import cvat, jaad
from vidreason.scenes.cache import cached, content_key
from vidreason.scenes.jaad import (
    FOLDERS,
    annotation_path,
    read_jaad,
    read_splits,
    read_video,
)
from vidreason.scenes.scene import (
    APPEARANCE,
    CROSS,
    CUES,
    EGO_ACTIONS,
    FACTS,
    LABELS,
    OCCLUSION,
    SIGNALS,
    TRAFFIC_LIGHT,
    Scene,
)
from vidreason.simulation.street import write_street

VIDEO = tiny.VIDEO


@pytest.fixture(scope="module")
def short_root(tmp_path_factory):
    """Three videos so short that a test can write them anew several times."""
    root = tmp_path_factory.mktemp("short") / "jaad"
    return write_street(root, videos=3, frames=(24, 26), split=(1, 1, 1))


# --- A slow reader, element by element and box by box.


def slow_video(root, video):
    trees = {
        folder: ElementTree.parse(annotation_path(root, folder, video)).getroot()
        for folder in FOLDERS
    }
    task = trees["annotations"].find("meta/task")
    described = {e.get("id"): e for e in trees["annotations_attributes"].iter("pedestrian")}
    flags = {}
    for track in trees["annotations_appearance"].iter("track"):
        for box in track.iter("box"):
            flags[track.get("old_id"), int(box.get("frame"))] = box.attrib
    ids, kinds, behaviour, offsets, frames, boxes = [], [], [], [0], [], []
    cues, labels, facts = ({name: [] for name in names} for names in (CUES, LABELS, FACTS))
    for track in trees["annotations"].iter("track"):
        label = track.get("label")
        for box in track.iter("box"):
            tags = {a.get("name"): a.text for a in box}
            frames.append(int(box.get("frame")))
            boxes.append([float(box.get(corner)) for corner in ("xtl", "ytl", "xbr", "ybr")])
            cues["occlusion"].append(OCCLUSION.index(tags["occlusion"]))
            seen = flags.get((tags["old_id"], frames[-1]), {})
            for name in APPEARANCE:
                cues[name].append(int(seen.get(name, -1)))
            for name, words in LABELS.items():
                labels[name].append(words.index(tags[name]) if label == "pedestrian" else -1)
        ids.append(tags["id"])
        kinds.append(label == "people")
        behaviour.append(label == "pedestrian")
        offsets.append(len(frames))
        for name, words in FACTS.items():
            value = described[tags["id"]].get(name) if label == "pedestrian" else None
            code = -1 if value is None else words.index(value) if words else int(value)
            facts[name].append(code)
    traffic = list(trees["annotations_traffic"].iter("frame"))
    signals = {
        name: [
            TRAFFIC_LIGHT.index(f.get(name)) if name == "traffic_light" else int(f.get(name))
            for f in traffic
        ]
        for name in SIGNALS
    }
    about = ("time_of_day", "weather", "location")
    actions = [f.get("action") for f in trees["annotations_vehicle"].iter("frame")]
    return Scene(
        id=video,
        fps=29.97,
        width=int(task.findtext("original_size/width")),
        height=int(task.findtext("original_size/height")),
        length=int(task.findtext("size")),
        attributes={n: task.findtext(f"video_attributes/{n}") for n in about}
        | {"road_type": trees["annotations_traffic"].findtext("road_type")},
        ego_action=np.array([EGO_ACTIONS.index(a) for a in actions], np.int8),
        signals={n: np.array(v, np.int8) for n, v in signals.items()},
        track_ids=tuple(ids),
        kind=np.array(kinds, np.int8),
        facts={n: np.array(v, np.int32) for n, v in (facts | {"behaviour": behaviour}).items()},
        offsets=np.array(offsets, np.int64),
        frame=np.array(frames, np.int32),
        box=np.array(boxes, np.float32).reshape(-1, 4),
        cues={n: np.array(v, np.int8) for n, v in cues.items()},
        labels={n: np.array(v, np.int8) for n, v in labels.items()},
    )


@pytest.mark.parametrize("video", tiny.VIDEOS)
def test_every_value_is_read(tiny_root, video):
    made.assert_same([read_video(tiny_root, video)], [slow_video(tiny_root, video)])


# Frames missing inside a track, the smaller image, a line break in a file, nobody annotated.
@pytest.mark.parametrize("video", ["video_0102", "video_0061", "video_0257", "video_0330"])
def test_every_value_of_a_real_video_is_read(real_root, video):
    made.assert_same([read_video(real_root, video)], [slow_video(real_root, video)])


def test_the_vocabularies_are_those_that_the_real_files_declare(real_root):
    tree = ElementTree.parse(real_root / "annotations" / "video_0001.xml")
    declared = {}
    for attribute in tree.find("meta/task/labels/label/attributes"):
        name, _, words = attribute.text.partition("=")[2].partition(":")
        declared[name] = tuple(words.split(","))
    assert declared == {"id": ("",), "old_id": ("",), "occlusion": OCCLUSION, **LABELS}
    assert LABELS["cross"] == CROSS


# --- The same XML in other words.

FORMS = {
    "comment",
    "cdata",
    "note",
    "quotes",
    "references",
    "greater",
    "two spaces",
    "before =",
    "after =",
    "before >",
    "tabs",
    "lines",
    "crlf",
    "closed",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "latin-1",
}
FAKE = '<track label="ped"><box frame="7" xtl="0"><size>3</size></meta>'


def serialise(element, forms, rng):
    """The document in bytes, said as oddly as `forms` allow."""
    encoding = next((f for f in sorted(forms) if f.startswith(("utf", "latin"))), "utf-8")
    text = _serialise(element, forms, rng)
    if encoding == "latin-1":
        text = f'<?xml version="1.0" encoding="latin-1"?>{text}'
    return text.encode(encoding, "xmlcharrefreplace")


def _serialise(element, forms, rng):
    def space(form):
        options = " " + "\t" * ("tabs" in forms) + "\n" * ("lines" in forms)
        return "".join(rng.choices(options, k=(form == "two spaces") + (form in forms)))

    def aside():
        options = ["", f"<!--{FAKE}-->", f"<?note {FAKE}?>"]
        return rng.choice(options[: 1 + ("comment" in forms)] + options[2:] * ("note" in forms))

    def said(text):
        words = {"<": "&lt;", "&": "&amp;", '"': "&quot;", "'": "&apos;", ">": "&gt;"}
        if "greater" in forms:
            del words[">"]
        if "references" in forms:
            words |= {c: f"&#{ord(c)};" for c in text if rng.random() < 0.2}
        return "".join(words.get(c, c) for c in text)

    def quoted(text):
        quote = rng.choice("\"'") if "quotes" in forms else '"'
        return f"{quote}{said(text)}{quote}"

    def content(text):
        if "cdata" in forms and "]]>" not in text and text.isascii() and rng.random() < 0.5:
            return f"<![CDATA[{text}]]>"
        cut = rng.randrange(len(text) + 1)
        return said(text[:cut]).replace("]]>", "]]&gt;") + aside() + said(text[cut:])

    head = "<" + element.tag
    for name, text in element.attrib.items():
        head += f"{space('two spaces')}{name}{space('before =')}={space('after =')}{quoted(text)}"
    inner = content(element.text) if element.text else ""
    for child in element:
        inner += aside() + "\r\n" * ("crlf" in forms) + _serialise(child, forms, rng)
    if not inner and "closed" in forms:
        return f"{head}/>"
    return f"{head}{space('before >')}>{inner}</{element.tag}{space('before >')}>"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_file_reads_the_same_in_every_form(short_root, tmp_path, form):
    scene = read_video(short_root, "video_0001")
    for folder in FOLDERS:
        source = annotation_path(short_root, folder, "video_0001")
        target = annotation_path(tmp_path, folder, "video_0001")
        target.parent.mkdir()
        data = serialise(ElementTree.parse(source).getroot(), {form}, random.Random(0))
        target.write_bytes(data)
    made.assert_same([read_video(tmp_path, "video_0001")], [scene])


TEXT = st.text(
    st.one_of(
        st.sampled_from("<>&'\" =/;"),
        st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co", "Zs", "Zl", "Zp")),
    ),
    max_size=8,
)


@settings(max_examples=250)
@given(
    tracks=st.lists(st.tuples(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3)), max_size=3),
    word=TEXT,
    forms=st.sets(st.sampled_from(sorted(FORMS)), max_size=1)
    | st.sets(st.sampled_from(sorted(FORMS))),
    seed=st.integers(0, 99),
)
def test_every_value_survives_every_form(tmp_path_factory, tracks, word, forms, seed):
    survive(tmp_path_factory.getbasetemp() / "form.xml", tracks, word, forms, seed)


@pytest.mark.parametrize("form", [None, *sorted(FORMS)])
def test_every_mark_survives_every_single_form(tmp_path, form):
    for mark in "<>&'\"=/;é漢":
        for text in (mark, f"a{mark}b", f"{mark} {mark}"):
            for tracks in ([(text, [])], [("a", [(text, "b")])], [("a", [("b", text)])]):
                survive(tmp_path / "form.xml", tracks, "a", {form} - {None}, 0)
            survive(tmp_path / "form.xml", [], text, {form} - {None}, 0)


def survive(path, tracks, word, forms, seed):
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "weather").text = word
    for label, boxes in tracks:
        track = ElementTree.SubElement(root, "track", a="1", label=label)
        for frame, name in boxes:
            box = ElementTree.SubElement(track, "box", {"b": "x", "frame": frame})
            ElementTree.SubElement(box, "attribute", name="id").text = name
    path.write_bytes(serialise(root, forms, random.Random(seed)))
    text = cvat.read_xml(path)
    assert cvat.content(text, "weather") == word.strip()
    found = []
    for head, body in cvat.start_tags(text, "track"):
        values = cvat.attributes(head)
        assert values == {"a": "1", "label": values["label"]}
        boxes = [
            (cvat.attributes(h)["frame"], cvat.named_values(b)["id"])
            for h, b in cvat.start_tags(body, "box")
        ]
        found.append((values["label"], boxes))
    assert found == [(a, [(b, c.strip()) for b, c in boxes]) for a, boxes in tracks]


def test_repeated_tags_are_parsed_once_each_and_not_mixed_up():
    text = '<b x="1" n="5" y="2" /><b x="1" n="6" y="2" /><b x="1" n="7" y="3" /><bb n="8" />'
    numbers, rows, distinct = cvat.repeated_tags(text, "b", "n")
    assert (numbers, rows) == (["5", "6", "7"], [0, 0, 1])
    assert distinct == [{"x": "1", "y": "2"}, {"x": "1", "y": "3"}]


# --- Joins and gaps.


def test_appearance_is_joined_on_old_id_whatever_the_ids_say(copy):
    scene = read_video(copy, VIDEO)
    number = iter(range(1000))
    tiny.edit(
        copy, "annotations_appearance", ' id="[^"]*"', lambda _: f' id="{next(number)}"', count=0
    )
    made.assert_same([read_video(copy, VIDEO)], [scene])

    swap = {"ped1": "ped2", "ped2": "ped1"}
    tiny.edit(
        copy, "annotations_appearance", '(?<=old_id=")ped[12](?=")', lambda m: swap[m[0]], count=0
    )
    swapped = read_video(copy, VIDEO)
    rows = dict(scene.rows())
    one, two = rows["0_2_1"], rows["0_2_2"]
    _, i, j = np.intersect1d(scene.frame[one], scene.frame[two], return_indices=True)
    assert len(i) > 50
    for name in APPEARANCE:
        before, after = scene.cues[name], swapped.cues[name]
        np.testing.assert_array_equal(after[one][i], before[two][j])
        np.testing.assert_array_equal(after[two][j], before[one][i])
        rest = np.ones(len(before), bool)
        rest[one] = rest[two] = False
        np.testing.assert_array_equal(after[rest], before[rest])


def test_boxes_without_appearance_are_unknown(copy):
    scene = read_video(copy, VIDEO)
    path = annotation_path(copy, "annotations_appearance", VIDEO)
    tree = ElementTree.parse(path)
    by_old_id = {t.get("old_id"): t for t in tree.iter("track")}
    by_old_id["ped1"][:] = []
    tree.getroot().remove(by_old_id["ped2"])
    by_old_id["ped3"].remove(by_old_id["ped3"][4])
    tree.write(path)
    lost = np.zeros(len(scene.frame), bool)
    rows = dict(scene.rows())
    lost[rows["0_2_1"]] = lost[rows["0_2_2"]] = True
    lost[rows["0_2_3"].start + 4] = True
    expected = {n: np.where(lost, np.int8(-1), scene.cues[n]) for n in APPEARANCE}
    made.assert_same([read_video(copy, VIDEO)], [made.changed(scene, cues=expected)])


def test_a_gap_stays_a_gap(copy):
    scene = read_video(copy, VIDEO)
    tiny.gap(copy, first=20, last=24)
    gapped = read_video(copy, VIDEO)
    keep = (scene.frame < 20) | (scene.frame > 24)
    assert (~keep).any()
    for name in ("frame", "box"):
        np.testing.assert_array_equal(getattr(gapped, name), getattr(scene, name)[keep])
    for table in ("cues", "labels"):
        for name, column in getattr(scene, table).items():
            np.testing.assert_array_equal(getattr(gapped, table)[name], column[keep])
    np.testing.assert_array_equal(gapped.facts["crossing"], scene.facts["crossing"])
    for name, rows in gapped.rows():
        assert not {20, 21, 22, 23, 24} & set(gapped.frame[rows].tolist()), name


def test_a_video_in_which_nobody_is_annotated(copy):
    for folder, tag in (("annotations", "track"), ("annotations_attributes", "pedestrian")):
        tiny.edit(copy, folder, f"<{tag} .*</{tag}>|<{tag} .*/>", "")
    scene = read_video(copy, VIDEO)
    assert scene.track_ids == () and scene.box.shape == (0, 4) and list(scene.offsets) == [0]
    assert {len(column) for column in (scene.cues | scene.labels | scene.facts).values()} == {0}
    made.assert_same([read_video(copy, VIDEO)], read_jaad(copy)[1:2])
    made.assert_same(read_jaad(copy), read_jaad(copy, cache=False))


@pytest.mark.parametrize("folder", list(FOLDERS)[1:])
def test_a_partial_copy_has_unknowns_where_a_file_is_missing(copy, folder):
    scene = read_video(copy, VIDEO)
    annotation_path(copy, folder, VIDEO).unlink()
    unknown = {
        "annotations_attributes": {"facts": FACTS},
        "annotations_appearance": {"cues": APPEARANCE},
        "annotations_traffic": {"signals": SIGNALS},
        "annotations_vehicle": {},
    }[folder]
    columns = {
        table: {n: np.full_like(getattr(scene, table)[n], -1) for n in names}
        for table, names in unknown.items()
    }
    if folder == "annotations_vehicle":
        columns["ego_action"] = np.full_like(scene.ego_action, -1)
    if folder == "annotations_traffic":
        columns["attributes"] = {"road_type": ""}
    made.assert_same([read_video(copy, VIDEO, partial=True)], [made.changed(scene, **columns)])


# --- Cache.


def cache_file(root):
    return root / ".vidreason" / "scenes.npz"


def test_a_second_read_takes_the_cache_and_is_equal(copy, monkeypatch):
    first = read_jaad(copy)
    made.assert_same(first, read_jaad(copy, cache=False))
    made.assert_same(first, [slow_video(copy, video) for video in tiny.VIDEOS])
    monkeypatch.setattr(jaad, "read_video", None)
    made.assert_same(read_jaad(copy), first)


@pytest.mark.parametrize("seed", range(5))
def test_any_scenes_come_back_from_the_cache(tmp_path, seed):
    scenes = [made.scene(seed, i, tracks) for i, tracks in enumerate([0, 3, 0, 1, 5, 0])]
    cached(tmp_path / "c.npz", "key", lambda: scenes)
    made.assert_same(cached(tmp_path / "c.npz", "key", lambda: []), scenes)
    assert cached(tmp_path / "c.npz", "other", lambda: scenes[:1]) == scenes[:1]


@settings(max_examples=60)
@given(data=st.data())
def test_the_key_changes_with_any_byte_of_any_file(tmp_path_factory, data):
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
def test_a_change_in_any_kind_of_file_is_seen(copy, folder):
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


def test_no_damage_to_the_cache_is_ever_believed(tiny_root, tmp_path):
    scenes = read_jaad(tiny_root, cache=False)
    path = tmp_path / "scenes.npz"
    cached(path, "key", lambda: scenes)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        # Headers of the archive and of its arrays, its table of contents, and some data.
        starts = [member.header_offset for member in archive.infolist()]
        places = {i for start in starts for i in range(start, start + 250)}
        places |= {*range(archive.start_dir, len(good)), *range(0, len(good), 1999)}
    rng = random.Random(0)
    chosen = rng.sample(sorted(p for p in places if p < len(good)), 80)
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
    assert read_again > 40


def test_a_damaged_cache_is_mended(copy):
    first = read_jaad(copy)
    cache_file(copy).write_bytes(b"PK\x03\x04 nothing of use")
    made.assert_same(read_jaad(copy), first)
    assert cache_file(copy).stat().st_size > 10_000


def test_a_root_that_cannot_be_written_to_only_warns(copy):
    (copy / ".vidreason").write_text("in the way")  # a read-only folder does not stop root
    with pytest.warns(UserWarning, match=r"scenes\.npz: cache not written \(.+\)$"):
        scenes = read_jaad(copy)
    made.assert_same(scenes, read_jaad(copy, cache=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_jaad(copy, cache=False)


# --- Bad input: one line that says where and what to do.


def refusal(read, source, place, problem):
    with pytest.raises(DataError) as raised:
        read()
    error = raised.value
    assert error.source == str(source)
    assert re.fullmatch(place, error.place), error
    assert re.search(problem, error.problem), error
    assert re.search("restore|correct|fetch", error.mend), error
    text = str(error)
    assert text.isprintable() and text.startswith(f"{source}: "), text
    assert error.place in text and error.problem in text and error.mend in text


def test_refuses_a_missing_root(tmp_path):
    refusal(lambda: read_jaad(tmp_path / "no"), tmp_path / "no", "", "no such folder")


@pytest.mark.parametrize("folder", FOLDERS)
def test_refuses_a_missing_kind_and_a_missing_file(copy, folder):
    path = tiny.remove_file(copy, folder)
    if folder == "annotations":
        assert [scene.id for scene in read_jaad(copy)] == ["video_0001", "video_0003"]
    else:
        refusal(lambda: read_jaad(copy), path, "", "no such file")
    refusal(lambda: read_video(copy, VIDEO), path, "", r"cannot be read \(No such file")
    refusal(lambda: read_jaad(copy), tiny.remove_kind(copy, folder), "", "folder is missing")


def test_refuses_a_root_without_videos(copy):
    for path in (copy / "annotations").iterdir():
        path.unlink()
    refusal(lambda: read_jaad(copy), copy / "annotations", "", r"holds no video_\*\.xml")


@pytest.mark.parametrize("folder", FOLDERS)
def test_refuses_files_that_are_no_xml(copy, folder, monkeypatch):
    path = annotation_path(copy, folder, VIDEO)
    whole = path.read_bytes()

    def read():
        return read_video(copy, VIDEO)

    refusal_of = {"read": read, "source": path}
    tiny.truncate(copy, folder)
    refusal(**refusal_of, place=r"line 1, column \d+", problem="not well-formed XML")
    path.write_bytes(whole)
    tiny.doctype(copy, folder)
    refusal(**refusal_of, place="", problem="has a DOCTYPE")
    path.write_bytes(b"")
    refusal(**refusal_of, place="", problem="is empty")
    path.write_bytes(b"<?xml version='1.0' encoding='klingon'?>" + whole)
    refusal(**refusal_of, place="", problem="unusable encoding .*klingon")
    path.write_bytes(whole + b"\xff")
    refusal(**refusal_of, place=r"line 1, column \d+", problem="not well-formed XML")
    path.write_bytes(whole)
    monkeypatch.setattr(cvat, "MAX_BYTES", 100)
    path = annotation_path(copy, "annotations", VIDEO)
    refusal(read=read, source=path, place="", problem="larger than")


BOX = r"track 0_2_1b, frame 56"
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
    "no width": ("", 'xbr="[^"]*" xtl="([^"]*)"', r'xbr="\1" xtl="\1"', BOX, "degenerate box"),
    "no height": ("", 'ybr="[^"]*" ytl="([^"]*)"', r'ybr="\1" ytl="\1"', BOX, "degenerate box"),
    "nan": ("", '(?<=ytl=")[^"]*', "nan", BOX, "not finite.*'ytl': 'nan'"),
    "inf": ("", '(?<=xbr=")[^"]*', "inf", BOX, "not finite.*'xbr': 'inf'"),
    "word": ("", '(?<=xbr=")[^"]*', "wide", BOX, "xbr='wide' is not a number"),
    "underscore": ("", '(?<=xbr=")[^"]*', "1_900", BOX, "xbr='1_900' is not a number"),
    "digits": ("", '(?<=xbr=")[^"]*', "\u0661", BOX, "is not a number"),
    "no corner": ("", ' xtl="[^"]*"(?=[^>]*frame="56")| xtl="[^"]*"', "", "track 1", "differ"),
    "no corners": ("", ' xtl="[^"]*"', "", "", r"box has attributes \['frame', .*'ytl'\]"),
    "twice": ("", 'frame="57"', 'frame="56"', BOX, "frames do not increase"),
    "back": ("", 'frame="57"', 'frame="3"', "track 0_2_1b, frame 3", "frames do not increase"),
    "beyond": ("", 'frame="123"', 'frame="124"', "track 0_2_1b, frame 124", "not a frame of 124"),
    "before": ("", 'frame="56"', 'frame="-1"', "track 0_2_1b, frame -1", "not a frame of 124"),
    "fraction": ("", 'frame="56"', 'frame="56.5"', "track 0_2_1b, frame 56.5", "not a frame"),
    "nan frame": ("", 'frame="56"', 'frame="nan"', "track 0_2_1b, frame nan", "not a frame"),
    "two people": ("", '(?<=name="id">)0_2_1b', "0_2_9b", "track 1", "name 2 pedestrians"),
    "nobody": ("", '(?<=label="pedestrian">).*?(?=</track>)', "", "track 1", "name 0 pedestrians"),
    "nameless": ("", '(?<=name="id">)0_2_1b', "", "track 1", "name 2 pedestrians"),
    "same name": ("", "0_2_2b", "0_2_1b", "track 2", "track '0_2_1b' occurs twice"),
    "no size": ("", "<size>.*</size>", "", "", "lacks size"),
    "no width of image": ("", "<width>1920<", "<width>0<", "", "lacks size or original_size"),
    "endless": ("", "<size>124<", f"<size>{10**12}<", "", "positive whole numbers"),
    "fact": ("attributes", '(?<=age=")[a-z]*', "old", "pedestrian 0_2_1b", "age='old' is not"),
    "fact missing": ("attributes", 'gender="[a-z/]*"', "", "pedestrian 0_2_1b", "'.missing"),
    "fact no number": ("attributes", '(?<=point=")[-0-9]*', "x", "pedestrian 0_2_1b", "'x' is not"),
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
    "flag frame": ("appearance", '(?<=frame=")56', "x", APPEARANCE_TRACK, "not rising whole.*'x'"),
    "flag frame twice": ("appearance", '(?<=frame=")57', "56", APPEARANCE_TRACK, "not rising"),
    "huge flag frame": ("appearance", '(?<=frame=")56', "9" * 30, APPEARANCE_TRACK, "not rising"),
    "light": ("traffic", '(id="123".*light=")[^"]*', r"\1blue", "frame 123", "traffic_light='b"),
    "sign": ("traffic", '(id="123".*ped_sign=")[01]', r"\1", "frame 123", "ped_sign='' is not"),
    "frame lost": ("traffic", '<frame id="7" [^>]*>', "", "", "123 frames, not frames 0 to 123"),
    "order": ("traffic", 'id="7"', 'id="8"', "", "124 frames, not frames 0 to 123 in order"),
    "ego": ("vehicle", 'action="[a-z_]*" id="9"', 'action="flying" id="9"', "frame 9", "flying"),
    "no frames": ("vehicle", "<frame .*/>", "", "", "0 frames"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_contents_that_cannot_be(copy, name):
    kind, pattern, replacement, place, problem = BAD[name]
    folder = f"annotations_{kind}" if kind else "annotations"
    count = 0 if name in ("no corners", "no facts", "same name") else 1
    path = tiny.edit(copy, folder, pattern, replacement, count=count)
    refusal(lambda: read_jaad(copy), path, place, problem)
    assert not cache_file(copy).exists()


def test_an_error_is_one_line_whatever_it_quotes():
    error = DataError("a\nb", "c\x1b[1m", "d\u2028", "e\r")
    assert str(error) == r"a\nb: e\r: c\x1b[1m; d\u2028"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# --- Split lists.


def test_lists_are_read_in_their_order(copy):
    path = copy / "split_ids" / "default" / "train.txt"
    path.write_text("video_0003\nvideo_0001\n\n")
    (copy / "annotations" / "video_0004.xml").touch()  # that it is there is enough for a list
    (path.parent / "test.txt").write_text("video_0004")
    train, val, test = read_splits(copy).values()
    assert (train, val, test) == (("video_0003", "video_0001"), ("video_0002",), ("video_0004",))
    assert read_splits(copy, "all_videos")["train"] == ("video_0001",)


def test_refuses_lists_that_contradict_the_copy(copy):
    path = tiny.stray_video(copy)
    refusal(lambda: read_splits(copy), path, "line 2", "'video_9999', which has no annotations")
    path.write_text("video_0001\nvideo_0001\n")
    refusal(lambda: read_splits(copy), path, "line 2", "'video_0001', which is in train already")
    path.write_text("video_0001\n")
    other = path.with_name("test.txt")
    other.write_text("video_0003 video_0001")
    refusal(lambda: read_splits(copy), other, "line 2", "'video_0001', which is in train already")
    other.write_bytes(b"\xff\xfe")
    refusal(lambda: read_splits(copy), other, "", "cannot be read")
    other.unlink()
    refusal(lambda: read_splits(copy), other, "", "cannot be read")


# --- Real counts (2017 and 2020 papers; README of the dataset).


def test_real_counts(real):
    kinds = np.concatenate([scene.kind for scene in real])
    behaviour = np.concatenate([scene.facts["behaviour"] for scene in real]) == 1
    assert (len(real), sum(scene.length for scene in real)) == (346, 82_032)
    people = (behaviour.sum(), ((kinds == 0) & ~behaviour).sum(), (kinds == 1).sum())
    assert people == (686, 2_017, 83)
    assert sum(len(scene.frame) for scene in real) == 391_038
    gaps = [np.diff(s.frame[rows]) > 1 for s in real for _, rows in s.rows()]
    assert (sum(g.any() for g in gaps), sum(g.sum() for g in gaps)) == (19, 19)
    assert sum(not scene.track_ids for scene in real) == 9
    assert sum((scene.width, scene.height) == (1280, 720) for scene in real) == 10
    assert sum((scene.labels["cross"] == 1).sum() for scene in real) == 75_047
    crossing = np.concatenate([scene.facts["crossing"] for scene in real])[behaviour]
    assert [(crossing == value).sum() for value in (1, 0, -1)] == [495, 91, 100]


def test_real_appearance_is_joined_for_every_box_of_every_person(real):
    joined = persons = 0
    for scene in real:
        flags = np.stack([scene.cues[name] for name in APPEARANCE])
        for k, (_, rows) in enumerate(scene.rows()):
            if scene.kind[k] == 0:
                persons += 1
                joined += (flags[:, rows] >= 0).all()
            else:
                assert (flags[:, rows] == -1).all()
    assert (joined, persons) == (2_703, 2_703)


def test_real_splits(real_root):
    sizes = {s: [len(v) for v in read_splits(real_root, s).values()] for s in jaad.SPLITS}
    assert sizes == {
        "default": [177, 29, 117],
        "high_visibility": [182, 30, 121],
        "all_videos": [188, 32, 126],
    }
