"""Geometry: estimators recover what is true, and say when there is nothing to recover; errors are what they claim."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightglue import SIFT, InputError, NearestNeighbor, load_image, match_pair
from lightglue.geometry import (
    Camera,
    EstimatorOptions,
    as_camera,
    corner_error,
    epipolar_error,
    estimate,
    estimate_essential,
    estimate_fundamental,
    estimate_homography,
    estimate_relative_pose,
    fit_homography,
    fundamental_from_pose,
    normalized_epipolar_error,
    pose_error,
    rotation_error,
    symmetric_transfer_error,
    transfer_error,
    translation_error,
    with_opencv,
)
from lightglue.geometry.points import transform

ROBUST = ("poselib", "opencv", "pycolmap")
SIZE = (640, 480)
H = np.array([[1.1, 0.05, 10], [-0.02, 0.95, 5], [1e-4, 5e-5, 1]])
K0 = np.array([[500, 0, 320.0], [0, 510, 240], [0, 0, 1]])
K1 = np.array([[600, 0, 300.0], [0, 610, 250], [0, 0, 1]])
EXACT = ("poselib", "pycolmap")  # they refine to the end; OpenCV ends with a weighted mean of good models
EXACT_PX = {"poselib": 1e-6, "opencv": 0.01, "pycolmap": 1e-6}


def motion(
    rotation: tuple[float, float, float] = (0.1, 0.3, -0.05), t: tuple[float, float, float] = (1, 0.2, 0.1)
) -> np.ndarray:
    """T (4, 4) of a rotation vector, radians, and a translation."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(np.array(rotation, dtype=float))[0], t
    return T


def planar(count: int = 200, wrong: int = 60, noise: float = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of image 0 and where H sends them; the first `wrong` are anywhere."""
    rng = np.random.default_rng(seed)
    points0 = rng.uniform((0, 0), SIZE, (count, 2))
    points1 = transform(H, points0) + rng.normal(0, noise, (count, 2))
    points1[:wrong] = rng.uniform((0, 0), SIZE, (wrong, 2))
    return points0, points1


def spatial(
    T: np.ndarray, count: int = 300, wrong: int = 90, noise: float = 0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Projections of points in space into cameras K0 and K1; the first `wrong` are far from their epipolar line."""
    rng = np.random.default_rng(seed)
    X0 = rng.uniform((-2, -2, 4), (2, 2, 8), (count, 3))
    X1 = X0 @ T[:3, :3].T + T[:3, 3]
    points0, points1 = ((X @ K.T)[:, :2] / X[:, 2:] for X, K in ((X0, K0), (X1, K1)))
    points1 = points1 + rng.normal(0, noise, (count, 2))
    anywhere = rng.uniform((0, 0), SIZE, (50, count, 2))
    F = fundamental_from_pose(T, K0, K1)
    for i in range(wrong):
        far = epipolar_error(F, points0[[i] * 50], anywhere[:, i]) > 10
        points1[i] = anywhere[:, i][far][0]
    return points0, points1


# -- what is true is recovered --


@pytest.mark.parametrize("method", ROBUST)
def test_a_homography_is_recovered_among_wrong_matches(method):
    points0, points1 = planar()
    found = estimate_homography(points0, points1, EstimatorOptions(method))
    assert corner_error(found.model, H, SIZE) < EXACT_PX[method]
    assert found.model[2, 2] == 1
    assert found.inliers[60:].all()
    assert found.inliers[:60].sum() <= 1
    told = found.statistics
    assert (told.num_matches, told.num_inliers, told.failure) == (200, found.inliers.sum(), None)
    assert told.seconds > 0


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("seed", range(5))
def test_a_relative_pose_is_recovered_among_wrong_matches(method, seed):
    rng = np.random.default_rng(seed)
    T = motion(tuple(rng.normal(0, 0.15, 3)), tuple(rng.normal(0, 1, 3)))
    found = estimate_relative_pose(*spatial(T, seed=seed), K0, K1, EstimatorOptions(method))
    assert pose_error(found.model, T, is_directed=True) < 1e-6
    assert np.linalg.norm(found.model[:3, 3]) == pytest.approx(1)
    assert found.inliers[90:].all()


def test_opencv_comes_near_the_relative_pose():
    errors = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        T = motion(tuple(rng.normal(0, 0.15, 3)), tuple(rng.normal(0, 1, 3)))
        errors.append(
            pose_error(estimate_relative_pose(*spatial(T, seed=seed), K0, K1, EstimatorOptions("opencv")).model, T)
        )
    assert np.median(errors) < 0.1
    assert max(errors) < 5


@pytest.mark.parametrize("method", ROBUST)
def test_a_fundamental_matrix_is_recovered_among_wrong_matches(method):
    points0, points1 = spatial(motion())
    found = estimate_fundamental(points0, points1, EstimatorOptions(method))
    assert epipolar_error(found.model, points0[90:], points1[90:]).max() < EXACT_PX[method]
    assert np.linalg.matrix_rank(found.model / np.abs(found.model).max(), tol=1e-6) == 2


@pytest.mark.parametrize("method", ROBUST)
def test_the_essential_matrix_is_that_of_the_pose(method):
    points0, points1 = spatial(motion())
    E = estimate_essential(points0, points1, K0, K1, EstimatorOptions(method)).model
    rays0, rays1 = as_camera(K0).normalize(points0[90:]), as_camera(K1).normalize(points1[90:])
    ones = np.ones((len(rays0), 1))
    products = np.sum(np.hstack([rays1, ones]) * (np.hstack([rays0, ones]) @ E.T), axis=1)
    assert np.abs(products).max() < 1e-4
    assert np.linalg.svd(E, compute_uv=False) == pytest.approx([1, 1, 0], abs=1e-6)


def test_a_threshold_in_px_means_the_same_to_every_library():
    points0, points1 = spatial(motion(), wrong=0, noise=1.0)
    counts = {
        (method, threshold): estimate_relative_pose(
            points0, points1, K0, K1, EstimatorOptions(method, threshold)
        ).statistics.num_inliers
        for method in ROBUST
        for threshold in (0.5, 3.0)
    }
    for method in ROBUST:
        assert counts[method, 0.5] < 0.75 * counts[method, 3.0]
        assert counts[method, 3.0] > 250


def test_the_default_is_poselib_at_one_pixel_and_for_homographies_at_two():
    assert estimate_homography(*planar()).statistics.options == EstimatorOptions("poselib", 2.0)
    options = estimate_fundamental(*spatial(motion())).statistics.options
    assert options == EstimatorOptions("poselib", 1.0)
    assert options.label == "poselib@1"


@pytest.mark.parametrize("method", ROBUST)
def test_the_default_is_no_less_accurate_than_plain_opencv(method):
    """Twenty noisy scenes: the median error beside OpenCV's RANSAC, which is what most programs call."""
    ours, plain = [], []
    for seed in range(20):
        T = motion((0.05 * seed / 20, 0.2, 0.02))
        points0, points1 = spatial(T, noise=0.7, seed=seed)
        ours.append(pose_error(estimate_relative_pose(points0, points1, K0, K1, EstimatorOptions(method)).model, T))
        rays0, rays1 = as_camera(K0).normalize(points0), as_camera(K1).normalize(points1)
        E, mask = cv2.findEssentialMat(rays0, rays1, np.eye(3), cv2.RANSAC, 0.9999, 1 / 555)
        _, R, t, _ = cv2.recoverPose(E[:3], rays0, rays1, np.eye(3), mask=mask)
        found = np.eye(4)
        found[:3, :3], found[:3, 3] = R, t[:, 0]
        plain.append(pose_error(found, T))
    assert np.median(ours) <= np.median(plain)


# -- the direct linear transform --


def test_dlt_is_exact_on_exact_points_and_takes_four():
    points0, points1 = planar(wrong=0)
    for count in (4, 5, 200):
        assert corner_error(fit_homography(points0[:count], points1[:count]), H, SIZE) < 1e-5


def test_dlt_ignores_matches_of_weight_zero():
    points0, points1 = planar(wrong=60)
    weights = np.ones(200)
    weights[:60] = 0
    found = estimate_homography(points0, points1, EstimatorOptions("dlt"), weights=torch.from_numpy(weights))
    assert corner_error(found.model, H, SIZE) < 1e-6
    assert corner_error(fit_homography(points0, points1), H, SIZE) > 10


def test_dlt_does_not_depend_on_where_the_origin_is():
    points0, points1 = planar(wrong=0, noise=1.0)
    move = np.array([[1, 0, 5000], [0, 1, -3000], [0, 0, 1]])
    moved = fit_homography(points0 + move[:2, 2], points1 + move[:2, 2])
    back = np.linalg.inv(move) @ moved @ move
    assert corner_error(back, fit_homography(points0, points1), SIZE) < 1e-4


# -- nothing to recover --


DEGENERATE = {
    "no match": np.zeros((0, 2)),
    "three matches": np.array([[0.0, 0], [100, 0], [0, 100]]),
    "the same match over and over": np.full((50, 2), 17.0),
    "a line": np.stack([np.arange(50.0), 3 * np.arange(50.0)], axis=1),
}


@pytest.mark.parametrize("geometry", ["homography", "fundamental", "essential", "relative_pose"])
@pytest.mark.parametrize("method", ROBUST)
@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_matches_give_no_model_and_a_reason(geometry, method, points):
    found = estimate(geometry, points, points + 5, EstimatorOptions(method), camera0=K0, camera1=K1)
    assert found.model is None
    assert found.inliers.shape == (len(points),)
    assert not found.inliers.any()
    assert found.statistics.failure
    assert found.statistics.num_inliers == 0


@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_matches_give_no_dlt(points):
    assert fit_homography(points, points + 5) is None


@pytest.mark.parametrize("method", ROBUST)
def test_random_matches_never_crash(method):
    rng = np.random.default_rng(0)
    for count in (4, 5, 7, 8, 9, 30):
        points0, points1 = rng.uniform(0, 500, (2, count, 2))
        for geometry in ("homography", "fundamental", "relative_pose"):
            found = estimate(geometry, points0, points1, EstimatorOptions(method), camera0=K0, camera1=K1)
            assert (found.model is None) == (found.statistics.failure is not None)


def test_an_assertion_within_opencv_is_nothing_found():
    """Points that are nearer to each other than the threshold: its sampler wants more inliers than there are."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        found = estimate_fundamental(*rng.normal(size=(2, 39, 2)), EstimatorOptions("opencv", 10, max_iterations=50))
        assert found.model is None
        assert found.statistics.failure


def test_pure_rotation_still_gives_the_rotation():
    T = motion(t=(0, 0, 0))
    found = estimate_relative_pose(*spatial(T, wrong=0), K0, K1)
    assert found.model is not None
    assert rotation_error(found.model[:3, :3], T[:3, :3]) < 0.1


# -- the same again --


@pytest.mark.parametrize("method", ROBUST)
def test_the_same_seed_gives_the_same_to_the_last_bit(method):
    points0, points1 = spatial(motion(), wrong=200, noise=1.0)
    options = EstimatorOptions(method, max_iterations=500, seed=7)
    for geometry in ("homography", "fundamental", "relative_pose"):
        first, second = (estimate(geometry, points0, points1, options, camera0=K0, camera1=K1) for _ in range(2))
        assert np.array_equal(first.model, second.model)
        assert np.array_equal(first.inliers, second.inliers)


@pytest.mark.parametrize("seed", range(4))
def test_opencv_is_its_own_magsac(seed):
    """The parameters that carry the seed are those that the flag, which takes none, stands for."""
    options = EstimatorOptions("opencv", 0.5)
    flag, threshold, trials, sure = cv2.USAC_MAGSAC, 0.5, options.max_iterations, options.confidence
    points0, points1 = spatial(motion(), count=400, wrong=250, noise=0.7, seed=seed)
    F, _ = cv2.findFundamentalMat(points0, points1, flag, threshold, sure, trials)
    assert estimate_fundamental(points0, points1, options).model == pytest.approx(F, rel=1e-9)
    rays0, rays1 = as_camera(K0).normalize(points0), as_camera(K1).normalize(points1)
    near = threshold * 2 / (as_camera(K0).focal + as_camera(K1).focal)
    E, mask = cv2.findEssentialMat(rays0, rays1, np.eye(3), method=flag, prob=sure, threshold=near, maxIters=trials)
    _, R, _, _ = cv2.recoverPose(E, rays0, rays1, np.eye(3), mask=mask)
    assert estimate_relative_pose(points0, points1, K0, K1, options).model[:3, :3] == pytest.approx(R, rel=1e-9)


def test_opencv_is_its_own_magsac_for_homographies_of_real_matches(image_path):
    """Most of these matches are wrong, so that much depends on how its local optimisation is set."""
    images = (load_image(image_path("montmartre", i)) for i in (0, 1))
    matcher = NearestNeighbor(ratio_threshold=0.9, ratio_both=False)
    found = match_pair(SIFT(max_num_keypoints=1024), matcher, *images, resize=800)[2]
    options = EstimatorOptions("opencv", 0.5)
    ends = [found[name].double().numpy() for name in ("points0", "points1")]
    told = {"maxIters": options.max_iterations, "confidence": options.confidence}
    expected, _ = cv2.findHomography(*ends, cv2.USAC_MAGSAC, 0.5, **told)
    assert with_opencv.homography(*ends, options).model == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["poselib", "pycolmap"])
def test_another_seed_draws_other_samples(method):
    points0, points1 = spatial(motion(), wrong=250, noise=2.0)
    models = [
        estimate_fundamental(points0, points1, EstimatorOptions(method, max_iterations=20, seed=seed)).model
        for seed in range(8)
    ]
    assert any(not np.array_equal(models[0], model) for model in models[1:])


# -- cameras --


def test_a_camera_without_distortion_needs_no_pycolmap_and_keeps_the_pixel_convention():
    camera = as_camera(pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 510, 320.5, 240.5]))
    assert camera.colmap is None
    assert np.allclose(camera.K, K0)
    assert np.allclose(camera.normalize(np.array([[320.0, 240]])), 0)


def lens(model: str = "OPENCV", *distortion: float) -> pycolmap.Camera:
    """A camera K0 with a lens."""
    return pycolmap.Camera(model=model, width=640, height=480, params=[500, 510, 320.5, 240.5, *distortion])


def test_distortion_is_undone_by_colmaps_cameras():
    camera = as_camera(lens("OPENCV", 0.1, -0.05, 0.002, 0.001))
    points = np.array([[0.0, 0], [320, 240], [600, 100]])
    rays = camera.normalize(points)
    bent = cv2.undistortPoints(points[:, None], K0, np.array([0.1, -0.05, 0.002, 0.001]))[:, 0]
    assert rays == pytest.approx(bent, abs=1e-5)
    assert camera.project(rays) == pytest.approx(points, abs=1e-6)
    assert camera.undistort(points)[1] == pytest.approx([320, 240])


@pytest.mark.parametrize("method", ROBUST)
def test_a_pose_is_recovered_through_distorting_lenses(method):
    T, first = motion(), lens("OPENCV", 0.1, -0.05, 0.002, 0.001)
    points0, points1 = spatial(T)
    bent0 = as_camera(first).project(as_camera(K0).normalize(points0))
    found = estimate_relative_pose(bent0, points1, first, K1, EstimatorOptions(method))
    assert pose_error(found.model, T, is_directed=True) < 0.01
    assert normalized_epipolar_error(T, first, K1, bent0, points1)[90:].max() < 1e-8
    straight = estimate_relative_pose(bent0, points1, K0, K1, EstimatorOptions(method))
    assert straight.model is None or pose_error(straight.model, T) > 0.1


@pytest.mark.parametrize("method", ROBUST)
def test_a_lens_that_sees_no_ray_gives_no_model(method):
    corners = np.random.default_rng(0).uniform(0, 40, (2, 50, 2))  # where this barrel bends no ray to
    found = estimate_relative_pose(*corners, lens("OPENCV", -0.5, 0, 0, 0), K1, EstimatorOptions(method))
    assert found.model is None
    assert found.statistics.failure
    assert not found.inliers.any()
    assert found.inliers.shape == (50,)


def test_a_camera_of_a_resized_image_sees_the_same_rays():
    points = np.array([[0.0, 0], [100, 50], [639, 479]])
    for camera in (as_camera(K0), as_camera(lens("OPENCV", 0.1, -0.05, 0.002, 0.001))):
        half = camera.scaled((0.5, 0.5))
        assert half.normalize((points + 0.5) * 0.5 - 0.5) == pytest.approx(camera.normalize(points), abs=1e-6)


def test_skew_is_honoured():
    K, T = np.array([[500, 40, 320.0], [0, 510, 240], [0, 0, 1]]), motion()
    points0, points1 = spatial(T)
    slanted = Camera(K).project(Camera(K0).normalize(points0))
    for method in ROBUST:
        found = estimate_relative_pose(slanted, points1, K, K1, EstimatorOptions(method))
        assert pose_error(found.model, T, is_directed=True) < 0.01


# -- errors --


def test_transfer_errors_are_distances_in_px():
    H = np.diag([2.0, 2, 1])
    points0, points1 = np.array([[10.0, 10]]), np.array([[23.0, 24]])
    assert transfer_error(H, points0, points1) == pytest.approx([5])
    assert symmetric_transfer_error(H, points0, points1) == pytest.approx([(5 + 2.5) / 2])


def test_a_point_at_infinity_or_behind_has_an_infinite_error():
    H = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # sends x = 100 to infinity
    errors = transfer_error(H, [[0, 0], [50, 0], [10, 5], [100, 0], [150, 0]], np.zeros((5, 2)))
    assert np.isfinite(errors).tolist() == [True, True, True, False, False]


def test_the_corner_error_is_the_mean_over_the_images_corners():
    move = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert corner_error(move, np.eye(3), SIZE) == pytest.approx(5)
    double = np.diag([2.0, 2, 1])  # corners at -0.5 and at the size less 0.5
    x, y = np.array([-0.5, 639.5]), np.array([-0.5, 479.5])
    assert corner_error(double, np.eye(3), SIZE) == pytest.approx(np.hypot(*np.meshgrid(x, y)).mean())
    assert corner_error(None, np.eye(3), SIZE) == np.inf
    assert corner_error(-move, np.eye(3), SIZE) == pytest.approx(5)


def test_epipolar_errors_are_distances_from_lines():
    F = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # two rectified images: lines are rows
    assert epipolar_error(F, [[5, 10], [7, 3]], [[50, 13], [1, 3]]) == pytest.approx([3, 0])
    assert epipolar_error(np.ones((3, 3)), [[1e308, 1e308]], [[1, 1]]) == [np.inf]  # without a warning
    T = motion((0, 0, 0), (1, 0, 0))
    K = np.diag([500.0, 500, 1])
    assert normalized_epipolar_error(T, K, K, [[5, 10]], [[50, 13]]) == pytest.approx([3 / 500])
    assert epipolar_error(fundamental_from_pose(T, K, K), [[5, 10]], [[50, 13]]) == pytest.approx([3])


@given(st.floats(1e-9, 179), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_the_rotation_error_is_the_angle(degrees, seed):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    first = cv2.Rodrigues(rng.normal(size=3))[0]
    turned = first @ cv2.Rodrigues(axis / np.linalg.norm(axis) * np.radians(degrees))[0]
    assert rotation_error(first, turned) == pytest.approx(degrees, rel=1e-6, abs=1e-10)


def test_the_translation_error_is_the_angle_whatever_the_lengths():
    assert translation_error([1, 0, 0], [0, 5, 0]) == pytest.approx(90)
    assert translation_error([2, 0, 0], [-1, 0, 0]) == pytest.approx(180)
    assert translation_error([0, 0, 0], [1, 0, 0]) == 180
    assert translation_error([1, 0, 0], [0, 0, 0]) == 0
    assert translation_error([1, 1e-9, 0], [1, 0, 0]) == pytest.approx(np.degrees(1e-9))


def test_the_pose_error_is_the_larger_angle_and_takes_a_translation_for_its_opposite():
    truth = motion((0, 0, 0), (1, 0, 0))
    turned = motion((0, np.radians(3), 0), (-1, 0, 0))
    assert pose_error(turned, truth) == pytest.approx(3)
    assert pose_error(turned, truth, is_directed=True) == pytest.approx(180)
    assert pose_error(None, truth) == np.inf


# -- arguments --


def test_tensors_lists_and_float32_are_points_too():
    points0, points1 = planar(wrong=0)
    expected = estimate_homography(points0, points1).model
    for kind in (torch.from_numpy, lambda a: a.tolist(), lambda a: torch.from_numpy(a).float().requires_grad_()):
        assert estimate_homography(kind(points0), kind(points1)).model == pytest.approx(expected, abs=1e-3)


WRONG = {
    "NaN": lambda p: np.where(np.arange(len(p))[:, None] == 3, np.nan, p),
    "three columns": lambda p: np.hstack([p, p[:, :1]]),
    "a flat array": lambda p: p.reshape(-1),
    "one too few": lambda p: p[:-1],
    "words": lambda p: [["a", "b"]] * len(p),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_points_that_are_none_are_an_error(spoil):
    points0, points1 = planar()
    for geometry in ("homography", "fundamental", "relative_pose"):
        with pytest.raises(InputError):
            estimate(geometry, points0, spoil(points1), camera0=K0, camera1=K1)


@pytest.mark.parametrize(
    "K",
    [
        np.full((3, 3), np.nan),
        np.eye(4),
        np.diag([-500.0, 500, 1]),
        np.diag([500.0, 500, 2]),
        "K",
        None,
        [[500, 0, 320], [0, 510]],
    ],
    ids=["NaN", "4 x 4", "a negative focal length", "another last row", "a word", "nothing", "ragged"],
)
def test_a_camera_that_is_none_is_an_error_with_a_remedy(K):
    with pytest.raises(InputError, match=r"give|must"):
        estimate_relative_pose(*spatial(motion()), K, K1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magsac"},
        {"threshold": 0},
        {"threshold": float("nan")},
        {"threshold": "1"},
        {"max_iterations": 0},
        {"confidence": 1.0},
        {"seed": -1},
        {"seed": True},
        {"max_iterations": True},  # which OpenCV takes for no integer
    ],
    ids=str,
)
def test_options_without_meaning_are_errors_that_name_the_value(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        EstimatorOptions(**wrong)


def test_dlt_fits_homographies_only():
    with pytest.raises(InputError, match="homographies only"):
        estimate_fundamental(*planar(), EstimatorOptions("dlt"))


def test_an_unknown_geometry_names_the_known_ones():
    with pytest.raises(InputError, match="relative_pose"):
        estimate("pose", *planar())
    with pytest.raises(InputError, match="camera0 and camera1"):
        estimate("relative_pose", *planar())


def test_a_missing_library_is_one_sentence_with_the_remedy():
    code = """
import sys
sys.modules["poselib"] = None
import numpy as np
from lightglue.errors import LightGlueError
from lightglue.geometry import EstimatorOptions, estimate_homography
points = np.random.default_rng(0).uniform(0, 100, (20, 2))
assert estimate_homography(points, points, EstimatorOptions("opencv")).model is not None
try:
    estimate_homography(points, points)
except LightGlueError as error:
    assert "pip install poselib" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
