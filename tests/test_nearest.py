"""Nearest-neighbour matching: what is a match, held to brute force, and that it goes wherever a matcher goes."""

from __future__ import annotations

import copy
import inspect
import json

import cv2
import numpy as np
import pytest
import torch

from lightglue import ALIKED, SIFT, LightGlue, NearestNeighbor, load_image, match_pair, match_pairs
from lightglue.errors import InputError
from lightglue.matching import assignment, neighbors
from lightglue.matching.neighbors import blocked_neighbors, dense_neighbors
from support import NEEDS_SHARED, SHARED
from support.matching import load_features, random_features

RATIO = 0.9


def given(descriptors, **extra):
    """Features with these descriptors (N, D), anywhere."""
    n = len(descriptors)
    return {"keypoints": torch.zeros(1, n, 2), "descriptors": torch.as_tensor(descriptors)[None], **extra}


def noisy_pair(m=60, n=50, dim=16, seed=0, length=1.0):
    """Two images that share half of their descriptors, up to noise that puts some of them near the ratio test."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(m, dim, generator=g), torch.randn(n, dim, generator=g)
    common = min(m, n) // 2
    b[:common] = a[:common].flip(0) + torch.linspace(0, 2, common)[:, None] * torch.randn(common, dim, generator=g)
    return given(a * length), given(b * length)


def brute_force(a, b, mutual=True, ratio=None, limit=None):
    """The matches (i, j), as their definition reads, in float64 and one by one."""
    a, b = (x["descriptors"][0].double().numpy() for x in (a, b))

    def choices(x, y):
        chosen = []
        for row in x:
            d = np.sqrt(((row - y) ** 2).sum(1))
            j = int(d.argmin())
            second = np.delete(d, j).min(initial=np.inf)
            good = (ratio is None or d[j] <= ratio * second) and (limit is None or d[j] <= limit)
            chosen.append(j if good else -1)
        return chosen

    there, back = choices(a, b), choices(b, a)
    return [[i, j] for i, j in enumerate(there) if j >= 0 and (not mutual or back[j] == i)]


# -- what is a match -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("ratio", [None, RATIO])
@pytest.mark.parametrize("limit", [None, 0.9])
@pytest.mark.parametrize("length", [1.0, 300.0], ids=["short", "long"])
def test_matches_are_those_of_brute_force(mutual, ratio, limit, length):
    a, b = noisy_pair(length=length)
    limit = limit and limit * 4 * length
    found = NearestNeighbor(mutual=mutual, ratio_threshold=ratio, distance_threshold=limit)({"image0": a, "image1": b})
    expected = brute_force(a, b, mutual, ratio, limit)
    assert found["matches"][0].tolist() == expected
    assert len(expected) > 3
    assert (len(expected) < 60) == bool(mutual or ratio or limit)


def test_each_test_rejects_something():
    a, b = noisy_pair()
    count = {len(brute_force(a, b, *options)) for options in [(False,), (True,), (True, RATIO), (True, RATIO, 3.0)]}
    assert len(count) == 4


def test_the_two_images_may_be_exchanged():
    a, b = noisy_pair()
    matcher = NearestNeighbor(ratio_threshold=RATIO)
    there, back = matcher({"image0": a, "image1": b}), matcher({"image0": b, "image1": a})
    assert torch.equal(there["matches0"], back["matches1"])
    assert torch.equal(there["matching_scores1"], back["matching_scores0"])


def test_mutual_matches_lead_back():
    a, b = noisy_pair()
    found = NearestNeighbor()({"image0": a, "image1": b})
    for i, j in found["matches"][0].tolist():
        assert found["matches0"][0, i] == j
        assert found["matches1"][0, j] == i
    assert (found["matches0"] >= 0).sum() == (found["matches1"] >= 0).sum() == len(found["matches"][0])


def test_without_the_mutual_check_each_image_chooses_for_itself():
    a, b = given([[0.0], [1.0], [1.1]]), given([[1.04]])
    found = NearestNeighbor(mutual=False)({"image0": a, "image1": b})
    assert found["matches0"].tolist() == [[0, 0, 0]]
    assert found["matches1"].tolist() == [[1]]
    assert found["matches"][0].tolist() == [[0, 0], [1, 0], [2, 0]]


def test_of_equal_descriptors_the_first_wins():
    g = torch.Generator().manual_seed(3)
    b = torch.randn(700, 33, generator=g)
    for copied in ([3, 150], [9, 400, 699], [140, 141]):
        b[copied] = b[copied[0]].clone()
    a = torch.cat((b[[400, 150, 141]], b[[699]]))
    found = NearestNeighbor()({"image0": given(a), "image1": given(b)})
    assert found["matches"][0].tolist() == [[0, 9], [1, 3], [2, 140]]


def test_a_single_candidate_passes_the_ratio_test():
    """There is no second to be too near; hloc leaves the test out in this case."""
    found = NearestNeighbor(ratio_threshold=0.5)({"image0": given([[1.0]]), "image1": given([[9.0]])})
    assert found["matches"][0].tolist() == [[0, 0]]
    one_sided = NearestNeighbor(ratio_threshold=0.5)({"image0": given([[1.0]]), "image1": given([[0.0], [2.0]])})
    assert one_sided["matches"][0].tolist() == []


def test_the_thresholds_themselves_pass():
    a, b = given([[0.0, 0.0]]), given([[0.0, 2.0], [4.0, 0.0]])
    assert len(NearestNeighbor(ratio_threshold=0.5)({"image0": a, "image1": b})["matches"][0]) == 1
    assert len(NearestNeighbor(distance_threshold=2)({"image0": a, "image1": b})["matches"][0]) == 1
    assert len(NearestNeighbor(distance_threshold=1.99)({"image0": a, "image1": b})["matches"][0]) == 0


def test_distances_of_near_copies_are_not_lost_in_rounding():
    """They are a thousandth of what a product of float32 unit vectors resolves."""
    g = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(40, 128, generator=g), dim=1)
    b = a + 1e-7
    found = NearestNeighbor(distance_threshold=2e-6, ratio_threshold=1e-4)({"image0": given(a), "image1": given(b)})
    assert found["matches0"].tolist() == [list(range(40))]


# -- published figures ------------------------------------------------------------------------------------------------

DATA = SHARED / "data"
published_pairs = pytest.mark.skipif(not (DATA / "published_pairs").exists(), reason=NEEDS_SHARED)


def published(data_set, method, index):
    """The two image files of a pair and the number of matches that was published for it."""
    pair = json.loads((DATA / f"{data_set}.json").read_text())["pairs"][index]
    figures = json.loads((DATA / "published_pairs" / f"{data_set}__{method}.json").read_text())[index]
    return DATA / pair["image0"], DATA / pair["image1"], figures["num"]


@published_pairs
def test_aliked_gives_the_published_number_of_matches():
    extractor = ALIKED(max_num_keypoints=1024, detection_threshold=0.0).eval()
    path0, path1, count = published("planar15", "aliked-nn", 0)
    found = match_pair(extractor, NearestNeighbor(), load_image(path0), load_image(path1), resize=None)[2]
    assert len(found["matches"]) == count


def opencv_root_sift(path):
    _, descriptors = cv2.SIFT_create(nfeatures=1024, contrastThreshold=0.01).detectAndCompute(
        cv2.imread(str(path), 0), None
    )
    descriptors = descriptors[:1024]
    return given(np.sqrt(descriptors / (descriptors.sum(1, keepdims=True) + 1e-7)))


@published_pairs
@pytest.mark.parametrize(("data_set", "index"), [("planar15", 1), ("synth16", 0), ("kusvod2", 2)])
def test_sift_gives_the_published_number_of_matches(data_set, index):
    """These figures were made with the ratio test from image 0 alone; ours from both images keeps fewer."""
    path0, path1, count = published(data_set, "sift-nn", index)
    pair = {"image0": opencv_root_sift(path0), "image1": opencv_root_sift(path1)}
    assert len(NearestNeighbor(ratio_threshold=0.8, ratio_both=False)(pair)["matches"][0]) == count
    assert len(NearestNeighbor(ratio_threshold=0.8)(pair)["matches"][0]) < count


# -- scores ----------------------------------------------------------------------------------------------------------


def test_the_score_of_unit_descriptors_is_the_cosine_mapped_to_0_and_1():
    a, b = (random_features(30, seed=s) for s in (1, 2))
    found = NearestNeighbor()({"image0": a, "image1": b})
    i, j = found["matches"][0].T
    cosine = (a["descriptors"][0, i] * b["descriptors"][0, j]).sum(1)
    torch.testing.assert_close(found["scores"][0], (1 + cosine) / 2, rtol=0, atol=1e-6)
    assert torch.equal(found["matching_scores0"][0, i], found["scores"][0])
    assert torch.equal(found["matching_scores1"][0, j], found["scores"][0])
    assert (found["matching_scores0"] > 0).sum() == len(i)  # 0 without a match


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [([3.0, 4.0], [3.0, 4.0], 1), ([0.0, 0.0], [0.0, 0.0], 1), ([5.0, 0.0], [0.0, 0.0], 0.5),
     ([2.0, 0.0], [-2.0, 0.0], 0), ([1.0, 0.0], [0.0, 1.0], 0.5)],
)  # fmt: skip
def test_the_score_of_any_descriptors_lies_between_0_and_1(a, b, score):
    found = NearestNeighbor()({"image0": given([a]), "image1": given([b])})
    assert found["scores"][0].tolist() == [score]


# -- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (40, 1), (2, 2), (130, 77), (257, 300)])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_give_what_the_whole_matrix_gives(m, n, rows, monkeypatch):
    monkeypatch.setattr(assignment, "CPU_ROWS", rows)
    monkeypatch.setattr(assignment, "CPU_BLOCK", 1)
    a, b = (x["descriptors"][0] for x in noisy_pair(m, n))
    for found, expected in zip(blocked_neighbors(a, b, seconds=True), dense_neighbors(a, b), strict=True):
        assert torch.equal(found.nearest, expected.nearest)
        torch.testing.assert_close(found.distance, expected.distance)
        torch.testing.assert_close(found.second, expected.second)


def test_ties_across_blocks_go_to_the_first_position(monkeypatch):
    monkeypatch.setattr(assignment, "CPU_ROWS", 2)
    monkeypatch.setattr(assignment, "CPU_BLOCK", 1)
    a = torch.tensor([[5.0], [1.0], [2.0], [1.0], [1.0], [2.0]])
    b = torch.tensor([[1.0], [2.0], [1.0]])
    found0, found1 = blocked_neighbors(a, b, seconds=True)
    assert found0.nearest.tolist() == [1, 0, 1, 0, 0, 1]
    assert found1.nearest.tolist() == [1, 2, 1]
    assert found1.second.tolist() == [0, 0, 0]


def test_no_more_than_a_block_of_the_matrix_is_held(monkeypatch):
    held = []
    real = neighbors._two_best
    monkeypatch.setattr(neighbors, "_two_best", lambda x, *rest: held.append(x.numel()) or real(x, *rest))
    blocked_neighbors(torch.rand(5_000, 4), torch.rand(20_000, 4), seconds=True)
    assert max(held) == assignment.CPU_ROWS * 20_000


# -- as any matcher --------------------------------------------------------------------------------------------------


def test_a_batch_gives_each_pair_its_own_result():
    a, b = (random_features(n, seed=n, batch=3) for n in (40, 30))
    matcher = NearestNeighbor(ratio_threshold=RATIO)
    together = matcher({"image0": a, "image1": b})
    for k in range(3):
        alone = matcher(
            {"image0": {n: v[k : k + 1] for n, v in a.items()}, "image1": {n: v[k : k + 1] for n, v in b.items()}}
        )
        for key, value in alone.items():
            assert torch.equal(together[key][k], value[0])


def test_match_takes_pairs_with_and_without_a_batch_dimension():
    a, b = noisy_pair()
    matcher = NearestNeighbor(ratio_threshold=RATIO)
    flat = {k: v[0] for k, v in a.items()}
    expected = matcher({"image0": a, "image1": b})
    for found in matcher.match(iter([(a, b), (flat, b)])):
        assert found.keys() == expected.keys()
        assert torch.equal(found["matches0"], expected["matches0"])
    assert matcher.match([]) == []


def test_its_output_has_the_keys_that_any_matcher_gives(reference):
    a, b = (load_features(reference, f"aliked-n16_montmartre_{i}") for i in (0, 1))
    found = NearestNeighbor()({"image0": a, "image1": b})
    assert found.keys() == {"matches0", "matches1", "matching_scores0", "matching_scores1", "matches", "scores"}
    assert found["matches0"].dtype == found["matches"][0].dtype == torch.int64
    assert found["matching_scores0"].dtype == torch.float32


def test_it_goes_where_lightglue_goes(image_path):
    images = [load_image(image_path("montmartre", i), resize=640) for i in (0, 1)]
    extractor, matcher = SIFT(max_num_keypoints=512), NearestNeighbor().eval().to("cpu")
    _, features1, found = match_pair(extractor, matcher, *images)
    assert len(found["points0"]) == len(found["matches"]) > 10
    assert torch.equal(found["points1"], features1["keypoints"][found["matches"][:, 1]])
    assert torch.equal(match_pairs(extractor, matcher, [tuple(images)])[0][2]["matches"], found["matches"])


def test_it_is_a_module_without_state():
    matcher = NearestNeighbor(ratio_threshold=0.8)
    assert not matcher.state_dict()
    assert not list(matcher.parameters())
    assert copy.deepcopy(matcher).conf == matcher.conf
    in_common = set(inspect.signature(LightGlue.match).parameters) - {"layers"}  # it has none
    assert in_common == set(inspect.signature(NearestNeighbor.match).parameters)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_any_real_dtype_is_compared_in_float32(dtype):
    a, b = (given((x["descriptors"][0] * 20 + 100).to(dtype)) for x in noisy_pair())
    found = NearestNeighbor()({"image0": a, "image1": b})
    assert found["matches"][0].tolist() == brute_force(a, b)
    assert found["scores"][0].dtype == torch.float32


def test_autocast_around_it_changes_nothing():
    a, b = noisy_pair()
    expected = NearestNeighbor()({"image0": a, "image1": b})
    with torch.autocast("cpu", torch.bfloat16):
        found = NearestNeighbor()({"image0": a, "image1": b})
    assert torch.equal(found["matches0"], expected["matches0"])


def test_double_compares_what_single_cannot_tell_apart():
    a, b = given([[1e4, 0.0]]), given([[1e4, 0.02], [1e4, 0.01]])
    double = NearestNeighbor().double()({"image0": a, "image1": b})
    assert double["matches"][0].tolist() == [[0, 1]]
    assert double["scores"][0].dtype == torch.float64


@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 5), (5, 0)])
def test_no_keypoints_give_no_matches(m, n):
    found = NearestNeighbor(ratio_threshold=0.8)({"image0": random_features(m), "image1": random_features(n)})
    assert found["matches0"].tolist() == [[-1] * m]
    assert found["matching_scores1"].tolist() == [[0.0] * n]
    assert found["matches"][0].shape == (0, 2)


# -- what is refused -------------------------------------------------------------------------------------------------

GOOD = random_features(5)
NAN = GOOD["descriptors"].clone()
NAN[0, 2, 1] = float("nan")
REFUSED = {
    "no descriptors": ({"keypoints": GOOD["keypoints"]}, "image1 lacks 'descriptors'"),
    "another length": (random_features(5, dim=8), "length 16 and image1 of 8"),
    "no length": ({**GOOD, "descriptors": torch.zeros(1, 5, 0)}, "one descriptor a keypoint"),
    "transposed": ({**GOOD, "descriptors": torch.zeros(1, 16, 5)}, r"transpose\(-1, -2\)"),
    "too few": ({**GOOD, "descriptors": torch.zeros(1, 4, 16)}, r"\(1, 5, D\), not \(1, 4, 16\)"),
    "no batch dimension": ({k: v[0] for k, v in GOOD.items()}, r"keypoints\[None\]"),
    "NaN": ({**GOOD, "descriptors": NAN}, "image1: descriptors hold NaN or infinity for 1 keypoints"),
    "too large": ({**GOOD, "descriptors": torch.full((1, 5, 16), 1e19)}, "overflow"),
    "another device": ({k: v.to("meta") for k, v in GOOD.items()}, r"on meta and the matcher on cpu.*batch_to_device"),
    "another batch size": (random_features(5, batch=2), "batch of 1 and image1 of 2"),
    "no dictionary": ([1], "must be a dictionary"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_features_are_refused_with_a_remedy(case):
    features, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        NearestNeighbor()({"image0": GOOD, "image1": features})


def test_what_is_no_pair_is_refused():
    matcher = NearestNeighbor()
    for data, message in [(None, "dictionary"), ({"image0": GOOD}, "image1")]:
        with pytest.raises(InputError, match=message):
            matcher(data)
    for pairs, message in [
        (None, "list of pairs"),
        ([GOOD], "item 0"),
        ([(GOOD, random_features(5, dim=8))], r"pairs\[0\]\[1\]"),
    ]:
        with pytest.raises(InputError, match=message):
            matcher.match(pairs)
    with pytest.raises(InputError, match=r"pairs\[0\]\[0\] holds a batch of 2"):
        matcher.match([(random_features(5, batch=2), random_features(5, batch=2))])


def test_half_precision_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"\.float\(\)"):
        NearestNeighbor().half()({"image0": GOOD, "image1": GOOD})


WRONG = {
    "mutual": [1, None],
    "ratio_both": [0, None],
    "ratio_threshold": [0, 1.5, "0.8", True],
    "distance_threshold": [-1, float("nan"), [1]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_option_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        NearestNeighbor(**{name: value})


def test_the_names_of_hloc_and_glue_factory_are_taken():
    hloc = NearestNeighbor(do_mutual_check=False, ratio_threshold=0.8, distance_threshold=0.7)
    factory = NearestNeighbor(mutual_check=False, ratio_thresh=0.8, distance_thresh=0.7)
    assert hloc.conf == factory.conf == NearestNeighbor(mutual=False, ratio_threshold=0.8, distance_threshold=0.7).conf
    with pytest.raises(InputError, match="given twice"):
        NearestNeighbor(mutual=True, do_mutual_check=False)
    with pytest.warns(UserWarning, match="did you mean 'ratio_threshold'"):
        NearestNeighbor(ratio_treshold=0.8)
