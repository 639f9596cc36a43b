"""Simulation of a street with pedestrians and vehicles, in metres.

Pedestrians walk along the street, stand, or walk to the kerb and cross in front of the moving ego
vehicle. Their decision depends on what a camera can see (crosswalk, traffic light, speed of the
vehicle, others who cross), so that crossing can be predicted, though not perfectly.
"""

from dataclasses import dataclass

import numpy as np

from vidreason.scenes.scene import LABELS

FPS = 30.0
WIDTH, HEIGHT, FOCAL = 1920, 1080, 1200.0  # pixels
EYE, LANE = 1.3, 3.3  # camera height and lane width, metres
CAR = (1.8, 1.5, 4.2)  # width, height, length, metres
ALONG, STAND, CROSS = range(3)  # goals of a person


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The street and the driver; x is metres to the right of the ego lane's centre, z ahead."""

    seed: int
    index: int  # number of the video, from 1
    length: int  # F, frames
    lanes: int
    one_way: bool
    kerbs: tuple[float, float]  # x of the left and the right kerb, metres
    spot: float  # z where most people cross, metres; the ego vehicle starts at z = 0
    zebra: bool  # whether there is a crosswalk
    ped_sign: bool
    stop_sign: bool
    intersection: bool
    light: np.ndarray  # (F,) int8, light for the ego vehicle, index into `TRAFFIC_LIGHT`
    yields: bool  # whether the driver stops for people who wait
    cruise: float  # desired speed of the driver, m/s
    start: float  # speed in the first frame, m/s
    weather: str
    time_of_day: str


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Attributes and goals of P people; the first axis of all arrays is P."""

    party: np.ndarray  # number of the group that walks together
    goal: np.ndarray  # ALONG, STAND or CROSS
    label: np.ndarray  # JAAD's label: `pedestrian` (with behaviour), `ped`, `people`
    age: np.ndarray  # `child`, `young`, `adult`, `senior`
    gender: np.ndarray  # `female`, `male`
    height: np.ndarray  # metres
    pace: np.ndarray  # walking speed, m/s
    side: np.ndarray  # of the road at the start: -1 left, 1 right
    way: np.ndarray  # direction along z: -1 or 1
    origin: np.ndarray  # (P, 2) x and z in the first frame, metres
    target: np.ndarray  # (P, 2) x and z of the point on the kerb to cross from, metres
    leave: np.ndarray  # time when the person starts to walk, s
    facing: np.ndarray  # heading when standing, radians; 0 is along z, pi / 2 along x
    patience: np.ndarray  # time gap to the ego vehicle that is considered safe, s
    outfit: np.ndarray  # (P, 20) int8, clothes and bags as in `APPEARANCE[4:]`


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """Simulated motion of P people and A cars in F frames."""

    place: Place
    people: People
    ego_z: np.ndarray  # (F,) position of the ego vehicle, metres
    ego_speed: np.ndarray  # (F,) m/s
    ego_acceleration: np.ndarray  # (F,) m/s²
    cars: np.ndarray  # (F, A, 2) x of other cars and z of their near ends, metres
    aim: np.ndarray  # (F, 2) vanishing point, pixels; it moves, since the vehicle pitches and yaws
    position: np.ndarray  # (F, P, 2) x and z of the feet, metres
    speed: np.ndarray  # (F, P) m/s
    heading: np.ndarray  # (F, P) radians; 0 is along z, pi / 2 along x
    stride: np.ndarray  # (F, P) gait phase, radians
    decided: np.ndarray  # (P,) frame of the decision to cross; -1 for none
    behaviour: dict[str, np.ndarray]  # (F, P) int8 per label, index into the words of `LABELS`

    def project(self, x: np.ndarray, y: np.ndarray | float, z: np.ndarray) -> np.ndarray:
        """Projects points of the street to pixels.

        Args:
            x: (F, P) metres.
            y: (F, P) or scalar, height above the ground, metres.
            z: (F, P) metres, in front of the ego vehicle.

        Returns:
            (F, P, 2) pixels.
        """
        scale = FOCAL / np.maximum(z - self.ego_z[:, None], 0.1)
        return np.stack([scale * x, scale * (EYE - y)], axis=-1) + self.aim[:, None]


def simulate(seed: int, index: int, frames: tuple[int, int] = (90, 240)) -> Street:
    """Simulates one video; the result depends on the arguments only.

    Args:
        seed: Seed of the dataset.
        index: Number of the video, from 1.
        frames: Minimum and maximum length of the video, in frames.
    """
    rng = np.random.default_rng((seed, index))
    place = _place(rng, seed, index, int(rng.integers(frames[0], frames[1] + 1)))
    return _live(rng, place, _people(rng, place))


def _place(rng: np.random.Generator, seed: int, index: int, length: int) -> Place:
    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    lanes = int(rng.choice([1, 2, 3, 4], p=[0.1, 0.55, 0.2, 0.15]))
    one_way = lanes == 1 or chance(0.3)
    right = float(LANE * (0.5 + rng.integers(lanes if one_way else lanes // 2)))
    held = chance(0.2)  # the ego vehicle stands at a red light in the first frame
    zebra, stop_sign = held or chance(0.55), chance(0.08)
    light = np.zeros(length, np.int8)
    if held or (zebra and chance(0.3)):
        first, second = (1, 2) if held else rng.permutation([1, 2])
        switch = length * rng.uniform(0.5 if held else 0, 1)
        light[:] = np.where(np.arange(length) < switch, first, second)
    cruise = rng.uniform(3, 9)
    spot = np.clip(cruise * length / FPS * rng.uniform(0.6, 1.3), 15, 50)
    return Place(
        seed=seed,
        index=index,
        length=length,
        lanes=lanes,
        one_way=one_way,
        kerbs=(right - lanes * LANE, right),
        spot=float(rng.uniform(7.5, 10) if held else spot),
        zebra=zebra,
        ped_sign=chance(0.5 if zebra else 0.1),
        stop_sign=stop_sign,
        intersection=chance(0.7),
        light=light,
        yields=stop_sign or chance(0.7 if zebra else 0.4),
        cruise=cruise,
        start=cruise * rng.uniform(0.7, 1) * (not held),
        weather=str(rng.choice(["clear", "cloudy", "rain"], p=[0.5, 0.4, 0.1])),
        time_of_day=str(rng.choice(["daytime", "nighttime"], p=[0.95, 0.05])),
    )


def _people(rng: np.random.Generator, place: Place) -> People:
    crossing, others = int(rng.choice(4, p=[0.07, 0.33, 0.38, 0.22])), int(rng.integers(4, 9))
    crowd = int(rng.random() < 0.25)
    parties = crossing + others + crowd
    goal = np.repeat([CROSS, ALONG], [crossing, others + crowd])
    goal[crossing : crossing + others][rng.random(others) < 0.35] = STAND
    label = np.where((goal == CROSS) | (rng.random(parties) < 0.05), "pedestrian", "ped")
    size = rng.choice([1, 2, 3], parties, p=[0.7, 0.24, 0.06])
    if crowd:
        label[-1], size[-1] = "people", rng.integers(3, 6)
    side, way = rng.choice([-1, 1], (2, parties))
    spread = 1.0 if place.zebra else 7.0
    spot = np.maximum(place.spot + spread * rng.standard_normal(parties), 6)
    late = 0.75 * place.length / FPS
    late = min(late, place.spot / place.cruise - 1) if place.start else late
    arrive = rng.triangular(-0.2, 0.8 * late, late, parties)
    aside, facing = rng.uniform(1, 6, parties), rng.uniform(-np.pi, np.pi, parties)
    elsewhere, watches = rng.uniform(6, 60, parties), rng.random(parties) < 0.4

    party = np.repeat(np.arange(parties), size)
    count, goal, side, way = len(party), goal[party], side[party], way[party]
    arrive, aside, crosses = arrive[party], aside[party], goal == CROSS
    age = rng.choice(4, count, p=[0.03, 0.07, 0.77, 0.13])
    pace = np.array([1.25, 1.4, 1.35, 1.1])[age] * rng.uniform(0.85, 1.15, count)
    near, far = rng.normal(0, [[0.45], [1.2]], (2, count))
    kerb = np.where(side < 0, *place.kerbs)
    # People who intend to cross reach the kerb at `arrive`, together with their group; if that is
    # before the first frame, they are already on the road.
    target = np.stack([kerb + side * 0.35, spot[party] + near], axis=1)
    path = np.stack([side * aside, far - way * 0.8 * aside], axis=1)
    distance = np.linalg.norm(path, axis=1)
    coming = target + path * np.clip(pace * arrive / distance, 0, 1)[:, None]
    coming[:, 0] -= side * pace * np.maximum(-arrive, 0)
    here = np.stack([kerb + side * (0.4 + 0.7 * aside + abs(near)), elsewhere[party] + far], axis=1)
    return People(
        party=party,
        goal=goal,
        label=label[party],
        age=np.array(["child", "young", "adult", "senior"])[age],
        gender=rng.choice(["female", "male"], count),
        height=np.array([1.2, 1.6, 1.72, 1.66])[age] * rng.normal(1, 0.04, count),
        pace=pace,
        side=side,
        way=way,
        origin=np.where(crosses[:, None], coming, here),
        target=target,
        leave=np.where(crosses, np.maximum(arrive - distance / pace, 0), 0),
        facing=np.where(crosses | watches[party], -side * np.pi / 2, facing[party]),
        patience=rng.normal(4, 0.8, count),
        outfit=(rng.random((count, 20)) < rng.choice([0.03, 0.4], 20)).astype(np.int8),
    )


def drift(rng: np.random.Generator, length: int, shape: tuple[int, ...], width: int) -> np.ndarray:
    """Returns noise (length, *shape) of unit variance, correlated over `width` frames."""
    total = np.cumsum(rng.standard_normal((length + width, *shape)), axis=0)
    return (total[width:] - total[:-width]) / np.sqrt(width)


def _live(rng: np.random.Generator, place: Place, who: People) -> Street:
    length, count = place.length, len(who.party)
    wander, doubt, gaze = (drift(rng, length, (count,), width) for width in (30, 20, 25))
    dice, step = rng.random((length, count)), 1 / FPS
    nods, waves = rng.random((2, count)) < 0.1
    (left, right), crosser = place.kerbs, who.goal == CROSS
    far_kerb = np.where(who.side < 0, right, -left)
    position, heading, decided = who.origin.copy(), who.facing.copy(), np.full(count, -1)
    started = crosser & (who.side * (who.target - position)[:, 0] > 0.2)
    velocity = np.stack(
        [-who.side * started * who.pace, (who.goal == ALONG) * who.way * who.pace], 1
    )
    ego_z, ego_speed, push = 0.0, place.start, 0.0
    log: dict[str, list[np.ndarray]] = {}
    for t in range(length):
        x, z = position.T
        ahead = z - ego_z
        arrival = np.where(ahead > 0, ahead / max(ego_speed, 0.3), np.inf)
        on_road = started & (x > left) & (x < right)
        to_kerb = who.target - position
        distance = np.hypot(*to_kerb.T)
        waits = crosser & ~started & (distance < 0.9)
        safe = (arrival > who.patience) | (ego_speed < 1.5)
        hurry = on_road & (arrival < 2.5) & (ego_speed > 2)
        coming = crosser & ~started & (distance < 4)
        shy = coming & ~safe & ~waits

        # Starting to cross is random, with a rate per second that depends on visible facts only.
        friends = np.isin(who.party, who.party[on_road])
        odds = 1.5 * (2.5 if place.zebra else 1) * (1, 3, 0.1)[place.light[t]]
        odds *= (3 if push < -0.5 or ego_speed < 1 else 1) * (2 if on_road.any() else 1)
        go = waits & (dice[t] < odds * step * np.where(friends, 5, 1) * np.where(safe, 1, 0.02))
        started, decided = started | go, np.where(go, t, decided)
        across = started & (-who.side * x > far_kerb + 0.8)

        # The driver stops for a red light, for people on the road and, if yielding, who wait.
        stop_for = (on_road & (who.side * x > -2.5)) | (coming & place.yields)
        stops = [*z[stop_for], *[place.spot] * int(place.light[t] == 1)]
        gap = min((stop - 6 - ego_z for stop in stops if stop > ego_z + 3), default=np.inf)
        wish = 1 + 1.3 * ego_speed + ego_speed**2 / 4
        want = 1.6 * (1 - (ego_speed / place.cruise) ** 4 - (wish / max(gap, 0.1)) ** 2)
        push += float(np.clip(max(want, -7) - push, -0.6, 0.4))
        push = max(push, -ego_speed / step)

        pace = who.pace * np.select([hurry, shy], [1.4, 0.4], 1)
        ways = np.stack([0.12 * wander[t], who.way * pace], axis=1) * (who.goal != STAND)[:, None]
        stroll = to_kerb / np.maximum(distance, 0.1)[:, None]
        stroll *= (pace * np.clip(1 + 0.25 * doubt[t], 0.2, 1.2) * (t * step >= who.leave))[:, None]
        over = np.stack([-1.1 * who.side * pace, np.zeros(count)], axis=1)
        plans = [~crosser | across, started, ~waits]
        aim = np.select([plan[:, None] for plan in plans], [ways, over, stroll], 0)
        velocity = velocity + (aim - velocity) * step / 0.25
        speed = np.hypot(*velocity.T)
        turn = np.where(speed > 0.35, np.arctan2(*velocity.T), who.facing) - heading
        heading = heading + ((turn + np.pi) % (2 * np.pi) - np.pi) * step / 0.3

        thanks = (decided >= 0) & (t - decided < 20) & (ego_speed < 2)
        in_lane = abs(x) < LANE / 2
        now = {
            "ego": np.array([ego_z, ego_speed, push]),
            "position": position,
            "speed": speed,
            "heading": heading,
            "cross": on_road & (ahead > 0),
            "action": speed > 0.3,
            "look": gaze[t] + 1.2 * waits + 0.6 * (arrival < 5) > 1.6,
            "nod": thanks & nods,
            "hand_gesture": 4 * (thanks & waves),
            "reaction": np.select([hurry & in_lane, hurry, shy & (speed > 0.3)], [1, 2, 3]),
        }
        for name, value in now.items():
            log.setdefault(name, []).append(value)
        position = position + velocity * step
        ego_speed = max(ego_speed + push * step, 0.0)
        ego_z += ego_speed * step

    ego, position, speed, heading = (
        np.stack(log[name]) for name in ("ego", "position", "speed", "heading")
    )
    sway = 4 * drift(rng, length, (2,), 25) * np.minimum(ego[:, 1:2] / 5, 1)
    return Street(
        place=place,
        people=who,
        ego_z=ego[:, 0],
        ego_speed=ego[:, 1],
        ego_acceleration=ego[:, 2],
        cars=_traffic(np.random.default_rng((place.seed, place.index, 3)), place, position),
        aim=sway + (WIDTH / 2, HEIGHT / 2),
        position=position,
        speed=speed,
        heading=heading,
        stride=np.cumsum(speed, axis=0) * step * 2 * np.pi / 1.4 + rng.uniform(0, 6, count),
        decided=decided,
        behaviour={name: np.stack(log[name]).astype(np.int8) for name in LABELS},
    )


def _traffic(rng: np.random.Generator, place: Place, position: np.ndarray) -> np.ndarray:
    """Simulates parked cars and cars in the lanes to the left of the ego vehicle.

    The latter are oncoming, or drive in the same direction if the street is one-way. They stop for
    people on the road.

    Args:
        rng: Source of randomness.
        place: Street.
        position: (F, P, 2) x and z of the people, metres.

    Returns:
        (F, A, 2) x of the cars and z of the end nearer to the camera, metres.
    """
    left, right = place.kerbs
    lanes = np.arange(left + LANE / 2, -LANE / 2, LANE)
    parked = [(side, z) for side in (left - 7, right + 7) for z in rng.uniform(5, 70, 3)]
    moving = [(x, z) for x in lanes for z in rng.uniform(0, 60, 1) + [20, 60]]
    start = np.array([*parked, *moving])
    way = np.repeat([0, 1 if place.one_way else -1], [len(parked), len(moving)])
    speed = place.cruise * rng.uniform(0.8, 1.2, len(start)) * abs(way)
    cruise, track = speed.copy(), [start]
    for t in range(1, place.length):
        now = track[-1]
        x, z = position[t].T
        on_road = (x > left - 0.5) & (x < right + 0.5)
        # Gap between the leading bumper and the nearest person on the road ahead.
        bumper = now[:, 1] + (way > 0) * CAR[2]
        gap = np.where(on_road, way[:, None] * (z - bumper[:, None]) - 3, np.inf)
        gap = np.where(gap > -3, gap, np.inf).min(1, initial=np.inf)
        same = (now[:, 0] == now[:, None, 0]) & (way[:, None] != 0)
        apart = way[:, None] * (now[:, 1] - now[:, None, 1]) - CAR[2] - 2
        gap = np.minimum(
            gap,
            np.where(
                same & (apart > -CAR[2] - 2) & ~np.eye(len(now), dtype=bool), apart, np.inf
            ).min(1),
        )
        allowed = np.sqrt(2 * 4.0 * np.maximum(gap, 0))
        speed = np.clip(np.minimum(cruise, allowed), speed - 8 / FPS, speed + 2 / FPS).clip(0)
        track.append(now + np.stack([np.zeros(len(now)), way * speed / FPS], 1))
    return np.stack(track)
