"""The XML parser reads every well-formed way to write the same document."""

import random
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import scenes as made

from vidreason.scenes import cvat
from vidreason.scenes.jaad import FOLDERS, annotation_path, read_video
from vidreason.simulation.street import write_street

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
    """Returns the document as bytes, varied at random in the ways that `forms` names."""
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

    def escaped(text):
        words = {"<": "&lt;", "&": "&amp;", '"': "&quot;", "'": "&apos;", ">": "&gt;"}
        if "greater" in forms:
            del words[">"]
        if "references" in forms:
            words |= {c: f"&#{ord(c)};" for c in text if rng.random() < 0.2}
        return "".join(words.get(c, c) for c in text)

    def quoted(text):
        quote = rng.choice("\"'") if "quotes" in forms else '"'
        return f"{quote}{escaped(text)}{quote}"

    def content(text):
        if "cdata" in forms and "]]>" not in text and text.isascii() and rng.random() < 0.5:
            return f"<![CDATA[{text}]]>"
        cut = rng.randrange(len(text) + 1)
        return escaped(text[:cut]).replace("]]>", "]]&gt;") + aside() + escaped(text[cut:])

    head = "<" + element.tag
    for name, text in element.attrib.items():
        head += f"{space('two spaces')}{name}{space('before =')}={space('after =')}{quoted(text)}"
    inner = content(element.text) if element.text else ""
    for child in element:
        inner += aside() + "\r\n" * ("crlf" in forms) + _serialise(child, forms, rng)
    if not inner and "closed" in forms:
        return f"{head}/>"
    return f"{head}{space('before >')}>{inner}</{element.tag}{space('before >')}>"


@pytest.fixture(scope="module")
def short_root(tmp_path_factory):
    """Three videos short enough to be written several times."""
    root = tmp_path_factory.mktemp("short") / "jaad"
    return write_street(root, videos=3, frames=(24, 26), split=(1, 1, 1))


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


@settings(max_examples=120)
@given(
    tracks=st.lists(st.tuples(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3)), max_size=3),
    word=TEXT,
    forms=st.sets(st.sampled_from(sorted(FORMS)), max_size=1)
    | st.sets(st.sampled_from(sorted(FORMS))),
    seed=st.integers(0, 99),
)
def test_values_survive_any_forms(tmp_path_factory, tracks, word, forms, seed):
    assert_survives(tmp_path_factory.getbasetemp() / "form.xml", tracks, word, forms, seed)


@pytest.mark.parametrize("form", [None, *sorted(FORMS)])
def test_markup_characters_survive_every_form(tmp_path, form):
    for mark in "<>&'\"=/;é漢":
        for text in (mark, f"a{mark}b", f"{mark} {mark}"):
            for tracks in ([(text, [])], [("a", [(text, "b")])], [("a", [("b", text)])]):
                assert_survives(tmp_path / "form.xml", tracks, "a", {form} - {None}, 0)
            assert_survives(tmp_path / "form.xml", [], text, {form} - {None}, 0)


def assert_survives(path, tracks, word, forms, seed):
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


def test_repeated_tags_share_their_attributes():
    text = '<b x="1" n="5" y="2" /><b x="1" n="6" y="2" /><b x="1" n="7" y="3" /><bb n="8" />'
    numbers, rows, distinct = cvat.repeated_tags(text, "b", "n")
    assert (numbers, rows) == (["5", "6", "7"], [0, 0, 1])
    assert distinct == [{"x": "1", "y": "2"}, {"x": "1", "y": "3"}]
