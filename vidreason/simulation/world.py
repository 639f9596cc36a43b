"""A made-up street: people and a car, in metres.

People walk along, stand, or come to the kerb and cross in front of a moving car. They weigh what a
camera can see (a crosswalk, the light, the car's speed, others setting out), so crossing can be
forecast from what is seen, though not perfectly.
"""

from dataclasses import dataclass

import numpy as np

from vidreason.scenes.scene import LABELS

FPS = 30.0
WIDTH, HEIGHT, FOCAL = 1920, 1080, 1200.0  # pixels
EYE, LANE = 1.3, 3.3  # height of the camera, width of a lane, metres
CAR = (1.8, 1.5, 4.2)  # metres: wide, high, long
ALONG, STAND, CROSS = range(3)  # what a person is out to do


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The street and its driver. x is metres right of the ego lane's centre, z metres ahead."""

    seed: int
    index: int  # number of the video, from 1
    length: int  # F, frames
    lanes: int
    one_way: bool
    kerbs: tuple[float, float]  # x of the left and the right kerb
    spot: float  # z where most people cross; the car starts at z = 0
    zebra: bool  # a crosswalk is painted there
    ped_sign: bool
    stop_sign: bool
    intersection: bool
    light: np.ndarray  # (F,) int8, the car's light, index into `TRAFFIC_LIGHT`
    yields: bool  # the driver stops for people who wait
    cruise: float  # speed the driver likes, m/s
    start: float  # speed in the first frame, m/s
    weather: str
    time_of_day: str


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """What P people are and want; all arrays begin with P."""

    party: np.ndarray  # number of the party one walks with
    goal: np.ndarray  # ALONG, STAND or CROSS
    label: np.ndarray  # JAAD's kind of track: pedestrian (with behaviour), ped, people
    age: np.ndarray  # child, young, adult, senior
    gender: np.ndarray  # female, male
    height: np.ndarray  # metres
    pace: np.ndarray  # walking speed, m/s
    side: np.ndarray  # -1 starts left of the road, 1 right
    way: np.ndarray  # walks down (-1) or up (1) the z axis
    origin: np.ndarray  # (P, 2) x and z in the first frame
    target: np.ndarray  # (P, 2) x and z of the kerb stone to cross from
    leave: np.ndarray  # time at which walking begins, s
    facing: np.ndarray  # heading when standing, radians; 0 looks along z, pi / 2 along x
    patience: np.ndarray  # time gap to the car that is felt to be safe, s
    outfit: np.ndarray  # (P, 20) int8, clothes and bags by `APPEARANCE[4:]`


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """What happens to P people in F frames."""

    place: Place
    people: People
    ego_z: np.ndarray  # (F,) metres
    ego_speed: np.ndarray  # (F,) m/s
    ego_acceleration: np.ndarray  # (F,) m/s²
    cars: np.ndarray  # (F, A, 2) other cars, metres: x, and z of the nearer end
    aim: np.ndarray  # (F, 2) pixel of the vanishing point; the car nods and sways
    position: np.ndarray  # (F, P, 2) x and z of the feet, metres
    speed: np.ndarray  # (F, P) m/s
    heading: np.ndarray  # (F, P) radians; 0 looks along z, pi / 2 along x
    stride: np.ndarray  # (F, P) phase of the gait, radians
    decided: np.ndarray  # (P,) frame of the decision to cross, -1 for none
    behaviour: dict[str, np.ndarray]  # (F, P) int8 each, indices into the words of `LABELS`

    def project(self, x: np.ndarray, y: np.ndarray | float, z: np.ndarray) -> np.ndarray:
        """Pixels (F, P, 2) of points (F, P), y metres above the ground, in front of the car."""
        scale = FOCAL / np.maximum(z - self.ego_z[:, None], 0.1)
        return np.stack([scale * x, scale * (EYE - y)], axis=-1) + self.aim[:, None]


def simulate(seed: int, index: int, frames: tuple[int, int] = (90, 240)) -> Street:
    """Simulates one video; `frames` bounds its length. Depends on nothing but the arguments."""
    rng = np.random.default_rng((seed, index))
    place = _place(rng, seed, index, int(rng.integers(frames[0], frames[1] + 1)))
    return _live(rng, place, _people(rng, place))


def _place(rng: np.random.Generator, seed: int, index: int, length: int) -> Place:
    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    lanes = int(rng.choice([1, 2, 3, 4], p=[0.1, 0.55, 0.2, 0.15]))
    one_way = lanes == 1 or chance(0.3)
    right = float(LANE * (0.5 + rng.integers(lanes if one_way else lanes // 2)))
    held = chance(0.2)  # the car stands at a red light when the video begins
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
    # Who means to cross walks to the kerb stone and is there at `arrive`, with the party; if that
    # is before the first frame, on the road already.
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
    """(length, *shape) noise of unit variance that forgets within `width` frames."""
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

        # To set out is a matter of chance, at odds per second that any observer could tell.
        friends = np.isin(who.party, who.party[on_road])
        odds = 1.5 * (2.5 if place.zebra else 1) * (1, 3, 0.1)[place.light[t]]
        odds *= (3 if push < -0.5 or ego_speed < 1 else 1) * (2 if on_road.any() else 1)
        go = waits & (dice[t] < odds * step * np.where(friends, 5, 1) * np.where(safe, 1, 0.02))
        started, decided = started | go, np.where(go, t, decided)
        across = started & (-who.side * x > far_kerb + 0.8)

        # The driver stops for a red light, people in front and, if so minded, people who wait.
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
    """Other cars, (F, A, 2) metres: x and z of the end that is nearer to the camera.

    Parked ones stand off the road; those in the lanes left of the camera come toward it, or drive
    the same way where the street is one-way. They stop for people on the road, who are at
    `position` (F, P, 2).
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
        # The gap ahead of the bumper that leads, to whoever is on the road there.
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
