"""Views of an image: pure functions of (seed, image, number), which show nothing beyond its sides."""

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.training.draws import Draws
from lightglue.training.extraction import make_view
from lightglue.training.views.homography import between_views, homography_of, sample_corners, warp_view
from lightglue.training.views.look import look_of
from lightglue.training.views.options import HomographyOptions, PhotometricOptions
from lightglue.training.views.photometric import augment

DULL = PhotometricOptions(p=0)


def scene(width=400, height=300):
    """Smooth, coloured, different everywhere."""
    y, x = np.mgrid[:height, :width].astype(float)
    channels = [127 + 120 * np.sin(x / 23 + c) * np.cos(y / 17 - c) for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def only(**options):
    """Photometric options that do one thing alone, always."""
    none = dict.fromkeys(("p_gamma", "p_hue", "p_one_of", "p_blur", "p_motion", "p_brightness", "p_clahe"), 0)
    return PhotometricOptions(**{"p": 1, **none, **options})


def test_draws_are_pure_functions_of_their_key():
    assert Draws(1, "a", 2).uniforms(5).tolist() == Draws(1, "a", 2).uniforms(5).tolist()
    assert Draws(1, "a", 2).uniform() != Draws(1, "a", 3).uniform()


def test_draws_are_the_same_with_every_version_of_numpy():
    assert Draws(7).uniforms(2).tolist() == [0.9076459605316209, 0.2206514595793877]
    assert Draws("a", 1).permutation(5).tolist() == [4, 1, 3, 2, 0]


def test_draws_are_spread_as_they_should_be():
    uniforms, normals = Draws(0).uniforms(20_000), Draws(1).normals(20_001)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert np.histogram(uniforms, 10, (0, 1))[0].min() > 1850
    assert abs(normals.mean()) < 0.03
    assert abs(normals.std() - 1) < 0.02
    assert sorted(Draws(2).permutation(50).tolist()) == list(range(50))
    assert {Draws(3, n).below(3) for n in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("size", [(640, 480), (300, 500), (120, 120), (2000, 150)])
def test_a_view_shows_nothing_beyond_the_sides_of_the_image(size):
    for number in range(100):
        corners = sample_corners(Draws(number), size, HomographyOptions())
        assert (corners >= -0.5 - 1e-9).all()
        assert (corners <= np.array(size) - 0.5 + 1e-9).all()


def test_corners_are_pulled_in_turned_and_convex_as_the_options_say():
    size, angles = np.array([640, 480]), set()
    for number in range(300):
        corners = sample_corners(Draws(number), (640, 480), HomographyOptions())
        sides = np.roll(corners, -1, 0) - corners
        following = np.roll(sides, -1, 0)
        cross = (sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]) / size.prod()
        assert cross.min() >= 0.05 - 1e-9
        across = sides[0] - sides[2]
        angles.add(round(float(np.degrees(np.arctan2(across[1], across[0]))) / 10))
    assert min(angles) < 0 < max(angles)
    plain = sample_corners(Draws(0), (640, 480), HomographyOptions(difficulty=0))
    assert plain.tolist() == [[-0.5, -0.5], [639.5, -0.5], [639.5, 479.5], [-0.5, 479.5]]


def test_a_homography_sends_the_corners_to_those_of_the_view():
    corners = np.array([[10.0, 20], [300, 40], [280, 250], [30, 200]])
    H = homography_of(corners, (64, 48))
    there = np.concatenate([corners, np.ones((4, 1))], 1) @ H.T
    assert there[:, :2] / there[:, 2:] == pytest.approx(
        np.array([[-0.5, -0.5], [63.5, -0.5], [63.5, 47.5], [-0.5, 47.5]]), abs=1e-9
    )


@pytest.mark.parametrize("size", [(400, 300), (1500, 1100)])
def test_pixels_of_a_view_are_where_its_homography_says(size):
    image = scene(*size)
    view, H = warp_view(image, Draws(4), (320, 240), HomographyOptions())
    assert view.shape == (240, 320, 3)
    assert view.dtype == np.uint8
    x, y = (each.reshape(-1) for each in np.meshgrid(np.arange(20, 300, 7), np.arange(20, 220, 7)))
    before = np.stack([x, y, np.ones_like(x)], 1) @ np.linalg.inv(H).T
    u, v = np.rint(before[:, :2] / before[:, 2:]).astype(int).T
    assert np.abs(view[y, x].astype(int) - image[v, u]).mean() < 4


def test_from_one_view_to_another_by_both_homographies():
    H0, H1 = np.diag([2.0, 2, 1]), np.array([[1.0, 0, 5], [0, 1, 0], [0, 0, 1]])
    assert between_views(H0, H1).tolist() == [[0.5, 0, 5], [0, 0.5, 0], [0, 0, 1]]


def test_a_view_is_a_pure_function_of_image_and_key():
    image, options = scene(), (HomographyOptions(), PhotometricOptions())
    views = [make_view(image, (0, "a.jpg", number), (160, 120), *options) for number in (0, 1, 0)]
    assert np.array_equal(views[0][0], views[2][0])
    assert np.array_equal(views[0][1], views[2][1])
    assert not np.array_equal(views[0][0], views[1][0])


@pytest.mark.parametrize(
    "options",
    [
        only(p_gamma=1),
        only(p_hue=1),
        only(p_one_of=1),
        only(p_blur=1),
        only(p_motion=1),
        only(p_brightness=1),
        only(p_clahe=1),
    ],
    ids=["gamma", "hue", "one of", "blur", "motion", "brightness", "clahe"],
)
def test_each_augmentation_changes_the_light_and_moves_nothing(options):
    image = scene()
    before = image.copy()
    for number in range(8):
        changed = augment(image, Draws(number), options)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, image)
        gray0, gray1 = (each.astype(float).mean(-1) for each in (image, changed))
        assert np.corrcoef(gray0[30:-30, 30:-30].ravel(), gray1[30:-30, 30:-30].ravel())[0, 1] > 0.5
    assert np.array_equal(image, before)


def test_brightness_gamma_and_contrast_are_those_of_the_options():
    gray = np.full((8, 8, 3), 100, np.uint8)
    darker = augment(gray, Draws(0), only(p_brightness=1, brightness=(-0.2, -0.2), contrast=(-0.1, -0.1)))
    assert darker[0, 0].tolist() == [39] * 3  # 100 x 0.9 - 51
    curved = augment(gray, Draws(0), only(p_gamma=1, gamma=(0.5, 0.5)))
    assert curved[0, 0].tolist() == [160] * 3  # 255 (100 / 255) ^ 0.5


def test_nothing_is_done_with_a_probability_of_0():
    image = scene()
    assert augment(image, Draws(0), DULL) is image


def test_copies_of_an_image_look_the_same_and_other_images_do_not():
    import cv2

    image = scene()
    smaller = cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA)
    compressed = cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)
    assert look_of(image) == look_of(smaller) == look_of(compressed)
    assert look_of(image) != look_of(np.ascontiguousarray(image[:, ::-1]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: HomographyOptions(difficulty=1), "difficulty"),
        (lambda: HomographyOptions(difficulty=0.9, min_convexity=0.4), "hardly any view"),
        (lambda: PhotometricOptions(p_blur=2), "p_blur"),
        (lambda: PhotometricOptions(blur=(9, 3)), "blur"),
        (lambda: PhotometricOptions(jpeg="high"), "jpeg"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
