// The features of an image, as `lightglue extract` writes them.
#pragma once

#include <string>
#include <vector>

struct Features {
  std::string kind;                // such as "aliked"
  std::vector<float> keypoints;    // (count, 2) x y in px, the centre of the top-left pixel being (0, 0)
  std::vector<float> descriptors;  // (count, length)
  std::vector<float> image_size;   // width, height in px
  std::vector<float> scales;       // (count,) px, of SIFT-like features only
  std::vector<float> oris;         // (count,) radians
  size_t count = 0;
  size_t length = 0;
};

// Reads an .npz file. Throws std::runtime_error, with the file's name, where it is damaged or holds something else.
Features read_features(const std::string& path);
