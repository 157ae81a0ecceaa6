// LightGlue on the features of two images, from the files of `lightglue export matcher`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "features.hpp"

class Json;

struct Matches {
  std::vector<int64_t> matches0;  // for each keypoint of image 0 its partner in image 1, or -1
  std::vector<float> scores0;     // of the partners, in [0, 1]; 0 where there is no mutual one
  int64_t stop = 1;               // layers run
};

class Matcher {
 public:
  virtual ~Matcher() = default;

  // Throws std::runtime_error for features that the model was not made for.
  Matches match(const Features& features0, const Features& features1);

  // The matcher of a file of format `adaptive`, or of a folder of format `steps`.
  static std::unique_ptr<Matcher> open(const std::string& path, int threads);

 protected:
  // Of images with at least one keypoint each, which fit.
  virtual Matches run(const Features& features0, const Features& features1) = 0;

  // What all formats say of the features, as JSON.
  void read_numbers(const Json& thresholds);

  std::string kind_;          // of the features, such as "aliked"
  size_t length_ = 0;         // of their descriptors
  bool with_scales_ = false;  // SIFT-like features have a scale and an orientation
};
