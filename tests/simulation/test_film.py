import av
import numpy as np
import pytest

from vidreason.perception.masks import boxes, encode
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import Film, TrueMasks, write_film, write_truth
from vidreason.simulation.street import view
from vidreason.simulation.world import HEIGHT, LANE, WIDTH, simulate


@pytest.fixture(scope="module")
def film():
    return Film(simulate(0, 2, (12, 14)))


def test_film_depends_on_the_street_only(film):
    again = Film(simulate(0, 2, (12, 14)))
    for t in (0, 11):
        for one, two in zip(film(t), again(t), strict=True):
            np.testing.assert_array_equal(one, two)


def test_every_kind_is_drawn(film):
    kinds = {KINDS[k] for k in film.kind}
    assert {"person", "vehicle"} <= kinds
    assert ("zebra" in kinds) == film.street.place.zebra
    assert ("traffic_light" in kinds) == bool(film.street.place.light.any())
    _, numbers = film(10)
    assert numbers.max() <= len(film.kind) and numbers.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("index", [1, 2, 4])
def test_people_are_drawn_where_they_are_annotated(index):
    film = Film(simulate(0, index, (30, 40)))
    box, seen, occlusion = view(film.street)
    overlaps = []
    for t in range(0, film.street.place.length, 6):
        drawn = boxes(encode(film(t)[1], len(film.kind)))
        for p in np.flatnonzero(seen[t] & (occlusion[t] == 0)):
            if drawn[p].any():
                low, high = np.maximum(box[t, p], drawn[p])[:2], np.minimum(box[t, p], drawn[p])[2:]
                both = np.prod(np.clip(high - low, 0, None))
                areas = [np.prod(b[2:] - b[:2]) for b in (box[t, p], drawn[p])]
                overlaps.append(both / (sum(areas) - both))
    # Annotated boxes include the swing of the arms and the noise of an annotator.
    assert np.median(overlaps) > 0.7 and np.mean(np.array(overlaps) > 0.5) > 0.9


def test_only_people_in_front_of_the_camera_are_drawn(film):
    _, numbers = film(10)
    street = film.street
    for number in np.unique(numbers[numbers > 0]):
        if number <= len(street.people.party):
            assert street.position[10, number - 1, 1] > street.ego_z[10]


def test_cars_keep_their_distance_and_stop_for_people():
    for index in range(1, 12):
        street = simulate(0, index)
        cars = street.cars
        left, right = street.place.kerbs
        lanes = cars[0, :, 0]
        assert (np.diff(cars[..., 0], axis=0) == 0).all()
        for lane in np.unique(lanes):
            if left < lane < right:
                z = np.sort(cars[:, lanes == lane, 1], axis=1)
                assert (np.diff(z, axis=1) > 4).all()
                assert abs(lane) > LANE / 2 - 1e-9  # never in the ego lane
        assert (abs(np.diff(cars[..., 1], axis=0)) < 0.6).all()  # metres per frame


def test_true_masks_match_the_film(film):
    picture, numbers = film(11)
    found = TrueMasks(film)(picture, 11)
    for n in range(len(found.kind)):
        (number,) = np.unique(numbers[found.image == n + 1])
        assert found.kind[n] == film.kind[number - 1]
        assert (numbers == number).sum() == (found.image == n + 1).sum()


def test_ground_truth_is_a_prepared_video(tmp_path, film):
    write_truth(tmp_path / "v.arrow", "v", film)
    prepared = Prepared(tmp_path / "v.arrow")
    assert prepared.length == film.street.place.length
    _, numbers = film(7)
    rows = prepared.window(7, 8)
    areas = np.bincount(numbers.ravel(), minlength=len(film.kind) + 1)
    assert rows["track"].to_pylist() == [n for n in range(len(film.kind)) if areas[n + 1] >= 64]
    for row in rows.to_pylist():
        assert row["kind"] == KINDS[film.kind[row["track"]]]
        assert sum(row["mask"][1::2]) == areas[row["track"] + 1]


def test_film_is_an_mp4_that_browsers_play(tmp_path, film):
    path = tmp_path / "street.mp4"
    write_film(path, film)
    video = Video(path)
    assert (video.width, video.height, video.length) == (WIDTH, HEIGHT, film.street.place.length)
    with av.open(path) as file:
        context = file.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    number, frame = next(video.frames(5))
    assert abs(frame.astype(int) - film(0)[0]).mean() < 4
