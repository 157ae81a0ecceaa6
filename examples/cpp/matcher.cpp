#include "matcher.hpp"

#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include "json.hpp"
#include "model.hpp"

namespace {

constexpr char kFormatVersion[] = "1";

template <typename T>
std::vector<T> values_of(const Ort::Value& tensor) {
  const T* begin = tensor.GetTensorData<T>();
  return {begin, begin + tensor.GetTensorTypeAndShapeInfo().GetElementCount()};
}

// The inputs of a model for one image; each name ends in `suffix`.
class ImageInputs {
 public:
  ImageInputs(const Features& features, const std::string& suffix, bool with_scales) {
    const int64_t count = static_cast<int64_t>(features.count), length = static_cast<int64_t>(features.length);
    add("kpts" + suffix, features.keypoints, {1, count, 2});
    add("desc" + suffix, features.descriptors, {1, count, length});
    add("image_size" + suffix, features.image_size, {1, 2});
    if (!with_scales) return;
    add("scales" + suffix, features.scales, {1, count});
    add("oris" + suffix, features.oris, {1, count});
  }

  void append_to(Named& named) const {
    for (const auto& [name, value] : inputs_) named.emplace_back(name.c_str(), &value);
  }

 private:
  void add(const std::string& name, const std::vector<float>& values, const Shape& shape) {
    inputs_.emplace_back(name, make_tensor(values, shape));
  }

  std::vector<std::pair<std::string, Ort::Value>> inputs_;
};

// Everything in one file: early stopping and pruning happen inside.
class AdaptiveMatcher : public Matcher {
 public:
  AdaptiveMatcher(const std::string& path, int threads) : runtime_(threads), model_(runtime_, path) {
    if (model_.metadata("lightglue.format") != "adaptive" ||
        model_.metadata("lightglue.format_version") != kFormatVersion) {
      throw std::runtime_error(path + " was not written by `lightglue export matcher --format adaptive`, or by "
                               "another version of it");
    }
    kind_ = model_.metadata("lightglue.features");
    read_numbers(Json::parse(model_.metadata("lightglue.thresholds")));
  }

 private:
  Matches run(const Features& features0, const Features& features1) override {
    const ImageInputs inputs[] = {{features0, "0", with_scales_}, {features1, "1", with_scales_}};
    Named named;
    for (const ImageInputs& each : inputs) each.append_to(named);
    const auto outputs = model_.run(named, {"matches0", "mscores0", "stop"});
    return {values_of<int64_t>(outputs[0]), values_of<float>(outputs[1]), *outputs[2].GetTensorData<int64_t>()};
  }

  Runtime runtime_;
  Model model_;
};

// A matcher in pieces: this loop decides when to stop and which keypoints to drop (paper, section 3.3).
class StepMatcher : public Matcher {
 public:
  StepMatcher(const std::string& folder, const Json& manifest, int threads)
      : runtime_(threads), embed_(runtime_, folder + "/" + manifest["embed"].text()) {
    if (manifest["format"].text() != "steps" || manifest["format_version"].text() != kFormatVersion) {
      throw std::runtime_error(folder + " holds another format, or another version of it; export it again");
    }
    for (const Json& name : manifest["layers"].items()) layers_.emplace_back(runtime_, folder + "/" + name.text());
    for (const Json& name : manifest["heads"].items()) heads_.emplace_back(runtime_, folder + "/" + name.text());
    for (const Json& number : manifest["confidence_thresholds"].items()) {
      confidence_thresholds_.push_back(static_cast<float>(number.number()));
    }
    if (layers_.empty() || heads_.size() != layers_.size() || confidence_thresholds_.size() + 1 != layers_.size()) {
      throw std::runtime_error(folder + ": the manifest is damaged; export it again");
    }
    kind_ = manifest["features"].text();
    const Json& numbers = manifest["thresholds"];
    read_numbers(numbers);
    depth_confidence_ = numbers["depth_confidence"].number();
    width_confidence_ = numbers["width_confidence"].number();
    filter_threshold_ = static_cast<float>(numbers["filter_threshold"].number());
    pruning_min_keypoints_ = static_cast<int64_t>(numbers["pruning_min_keypoints"].number());
  }

 private:
  // What is left of an image.
  struct Image {
    std::vector<Ort::Value> state;  // tokens (M, d), cosines and sines (M, 1, e / 2)
    std::vector<int64_t> slots;     // which of the given keypoints the M rows are

    bool empty() const { return slots.empty(); }
  };

  Matches run(const Features& features0, const Features& features1) override {
    std::vector<Image> images;
    for (const Features* features : {&features0, &features1}) images.push_back(embed(*features));
    const size_t given = features0.count + features1.count;
    Matches found{std::vector<int64_t>(features0.count, -1), std::vector<float>(features0.count, 0.0f), 0};

    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      ++found.stop;
      if (images[0].empty() || images[1].empty()) return found;  // all were dropped
      const bool last = layer + 1 == layers_.size();
      const auto scores = run_layer(layer, images, last);
      if (last || is_sure(layer, scores, given)) {
        assign(layer, images, found);
        return found;
      }
      for (size_t side = 0; side < 2; ++side) prune(layer, images[side], scores[side], scores[2 + side]);
    }
    return found;
  }

  Image embed(const Features& features) {
    const ImageInputs inputs(features, "", with_scales_);
    Named named;
    inputs.append_to(named);
    Image image{embed_.run(named, {"tokens", "cosines", "sines"}), std::vector<int64_t>(features.count)};
    std::iota(image.slots.begin(), image.slots.end(), 0);
    return image;
  }

  // Updates the tokens. Returns the confidences of both images and their matchabilities, nothing after the last layer.
  std::vector<std::vector<float>> run_layer(size_t layer, std::vector<Image>& images, bool last) {
    static constexpr const char* kInputs[2][3] = {{"tokens0", "cosines0", "sines0"}, {"tokens1", "cosines1", "sines1"}};
    Named named;
    for (size_t side = 0; side < 2; ++side) {
      for (size_t i = 0; i < 3; ++i) named.emplace_back(kInputs[side][i], &images[side].state[i]);
    }
    std::vector<const char*> wanted{"updated0", "updated1"};
    if (!last) wanted.insert(wanted.end(), {"confidence0", "confidence1", "matchability0", "matchability1"});
    auto outputs = layers_[layer].run(named, wanted);
    for (size_t side = 0; side < 2; ++side) images[side].state[0] = std::move(outputs[side]);

    std::vector<std::vector<float>> scores;
    for (size_t i = 2; i < outputs.size(); ++i) scores.push_back(values_of<float>(outputs[i]));
    return scores;
  }

  // Whether enough of the given keypoints are sure of their match; those that were dropped are.
  bool is_sure(size_t layer, const std::vector<std::vector<float>>& scores, size_t given) const {
    if (depth_confidence_ <= 0) return false;
    size_t unsure = 0;
    for (size_t side = 0; side < 2; ++side) {
      for (float confidence : scores[side]) unsure += confidence < confidence_thresholds_[layer];
    }
    const float share = 1.0f - static_cast<float>(unsure) / static_cast<float>(given);
    return share > static_cast<float>(depth_confidence_);
  }

  // Drops the keypoints that are sure and cannot be matched, of an image that has many.
  void prune(size_t layer, Image& image, const std::vector<float>& confidence,
             const std::vector<float>& matchability) const {
    if (width_confidence_ <= 0 || static_cast<int64_t>(image.slots.size()) <= pruning_min_keypoints_) return;
    const float least = static_cast<float>(1 - width_confidence_);
    std::vector<int64_t> rows, slots;
    for (size_t i = 0; i < image.slots.size(); ++i) {
      const bool unsure = depth_confidence_ > 0 && confidence[i] <= confidence_thresholds_[layer];
      if (!unsure && matchability[i] <= least) continue;
      rows.push_back(static_cast<int64_t>(i));
      slots.push_back(image.slots[i]);
    }
    if (rows.size() == image.slots.size()) return;
    for (Ort::Value& tensor : image.state) tensor = take_rows(tensor, rows);
    image.slots = std::move(slots);
  }

  // The matches of the keypoints that are left, as indices into those that were given.
  void assign(size_t layer, const std::vector<Image>& images, Matches& found) {
    const auto outputs = heads_[layer].run({{"tokens0", &images[0].state[0]}, {"tokens1", &images[1].state[0]}},
                                           {"partners0", "mscores0"});
    const auto partners = values_of<int64_t>(outputs[0]);
    const auto scores = values_of<float>(outputs[1]);
    for (size_t i = 0; i < partners.size(); ++i) {
      const size_t slot = static_cast<size_t>(images[0].slots[i]);
      found.scores0[slot] = scores[i];
      if (partners[i] >= 0 && scores[i] > filter_threshold_) {
        found.matches0[slot] = images[1].slots[static_cast<size_t>(partners[i])];
      }
    }
  }

  Runtime runtime_;
  Model embed_;
  std::vector<Model> layers_, heads_;
  std::vector<float> confidence_thresholds_;  // one a layer but the last
  double depth_confidence_ = -1;              // <= 0: no early stop
  double width_confidence_ = -1;              // <= 0: no pruning
  float filter_threshold_ = 0;
  int64_t pruning_min_keypoints_ = 0;  // an image with this many keypoints or fewer is not pruned
};

}  // namespace

void Matcher::read_numbers(const Json& thresholds) {
  length_ = static_cast<size_t>(thresholds["input_dim"].number());
  with_scales_ = thresholds["add_scale_ori"].number() != 0;
}

Matches Matcher::match(const Features& features0, const Features& features1) {
  for (const Features* each : {&features0, &features1}) {
    if (!each->kind.empty() && each->kind != kind_) {
      throw std::runtime_error("the features are " + each->kind + " and the model is for " + kind_);
    }
    if (each->length != length_) {
      throw std::runtime_error("descriptors have length " + std::to_string(each->length) + " and the model takes " +
                               std::to_string(length_));
    }
    if (with_scales_ && (each->scales.size() != each->count || each->oris.size() != each->count)) {
      throw std::runtime_error("the model needs scales and oris, which the features lack");
    }
  }
  if (features0.count == 0 || features1.count == 0) {
    return {std::vector<int64_t>(features0.count, -1), std::vector<float>(features0.count, 0.0f), 1};
  }
  return run(features0, features1);
}

std::unique_ptr<Matcher> Matcher::open(const std::string& path, int threads) {
  const std::string name = path + "/manifest.json";
  std::ifstream stream(name);
  if (!stream) return std::make_unique<AdaptiveMatcher>(path, threads);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  try {
    return std::make_unique<StepMatcher>(path, Json::parse(text), threads);
  } catch (const std::exception& error) {
    throw std::runtime_error(name + ": " + error.what());
  }
}
