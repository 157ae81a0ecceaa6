#include "matcher.hpp"

#include <stdexcept>

#include "json.hpp"
#include "model.hpp"

namespace {

template <typename T>
std::vector<T> values_of(const Ort::Value& tensor) {
  const T* begin = tensor.GetTensorData<T>();
  return {begin, begin + tensor.GetTensorTypeAndShapeInfo().GetElementCount()};
}

// Everything in one file: early stopping and pruning happen inside.
class AdaptiveMatcher : public Matcher {
 public:
  AdaptiveMatcher(const std::string& path, int threads) : runtime_(threads), model_(runtime_, path) {
    if (model_.metadata("lightglue.format") != "adaptive") {
      throw std::runtime_error(path + " was not written by `lightglue export matcher --format adaptive`");
    }
    kind_ = model_.metadata("lightglue.features");
    const Json numbers = Json::parse(model_.metadata("lightglue.thresholds"));
    length_ = static_cast<size_t>(numbers["input_dim"].number());
    with_scales_ = numbers["add_scale_ori"].number() != 0;
  }

 private:
  Matches run(const Features& features0, const Features& features1) override {
    std::vector<std::pair<std::string, Ort::Value>> inputs;
    int side = 0;
    for (const Features* each : {&features0, &features1}) {
      const std::string suffix = std::to_string(side++);
      const int64_t count = static_cast<int64_t>(each->count);
      inputs.emplace_back("kpts" + suffix, make_tensor(each->keypoints, {1, count, 2}));
      inputs.emplace_back("desc" + suffix, make_tensor(each->descriptors, {1, count, static_cast<int64_t>(length_)}));
      inputs.emplace_back("image_size" + suffix, make_tensor(each->image_size, {1, 2}));
      if (!with_scales_) continue;
      inputs.emplace_back("scales" + suffix, make_tensor(each->scales, {1, count}));
      inputs.emplace_back("oris" + suffix, make_tensor(each->oris, {1, count}));
    }
    Named named;
    for (const auto& [name, value] : inputs) named.emplace_back(name.c_str(), &value);
    const auto outputs = model_.run(named, {"matches0", "mscores0", "stop"});
    return {values_of<int64_t>(outputs[0]), values_of<float>(outputs[1]), *outputs[2].GetTensorData<int64_t>()};
  }

  Runtime runtime_;
  Model model_;
};

}  // namespace

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
  return std::make_unique<AdaptiveMatcher>(path, threads);
}
