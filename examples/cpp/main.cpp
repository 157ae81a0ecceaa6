// Matches two images' features: lightglue_match MODEL A.npz B.npz [-o matches.csv] [--threads N]

#include <cstdio>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "features.hpp"
#include "matcher.hpp"

namespace {

constexpr char kUsage[] =
    "usage: lightglue_match MODEL A.npz B.npz [-o matches.csv] [--threads N]\n"
    "\n"
    "MODEL   a file of `lightglue export matcher --format adaptive`, or a folder of `--format steps`\n"
    "A, B    the features of two images, files of `lightglue extract`\n";

struct Arguments {
  std::vector<std::string> files;
  std::string output;
  int threads = 1;
};

Arguments parse(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string value = values[i];
    if (value == "-o" || value == "--threads") {
      if (++i == count) throw std::invalid_argument(value + " needs a value");
      if (value == "-o") {
        arguments.output = values[i];
      } else if ((arguments.threads = std::atoi(values[i])) < 1) {
        throw std::invalid_argument("--threads is " + std::string(values[i]) + "; give a number of at least 1");
      }
    } else {
      arguments.files.push_back(value);
    }
  }
  if (arguments.files.size() != 3) throw std::invalid_argument("name a model and two files of features");
  return arguments;
}

// One line a match: the indices of the keypoints, where they are, and the score.
void write_csv(const std::string& path, const Features& features0, const Features& features1, const Matches& found) {
  std::ofstream file(path);
  file << "index0,index1,x0,y0,x1,y1,score\n" << std::setprecision(9);
  for (size_t i = 0; i < found.matches0.size(); ++i) {
    if (found.matches0[i] < 0) continue;
    const size_t j = static_cast<size_t>(found.matches0[i]);
    file << i << ',' << j;
    for (const float* point : {&features0.keypoints[2 * i], &features1.keypoints[2 * j]}) {
      file << ',' << point[0] << ',' << point[1];
    }
    file << ',' << found.scores0[i] << '\n';
  }
  file.close();
  if (!file) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace

int main(int count, char** values) {
  try {
    const Arguments arguments = parse(count, values);
    const Features features0 = read_features(arguments.files[1]), features1 = read_features(arguments.files[2]);
    const Matches found = Matcher::open(arguments.files[0], arguments.threads)->match(features0, features1);
    if (!arguments.output.empty()) write_csv(arguments.output, features0, features1, found);
    size_t matched = 0;
    for (int64_t partner : found.matches0) matched += partner >= 0;
    std::cout << matched << " matches of " << features0.count << " and " << features1.count << " keypoints after "
              << found.stop << " layers\n";
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "error: " << error.what() << ".\n\n" << kUsage;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << ".\n";
    return 1;
  }
}
