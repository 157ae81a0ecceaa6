// An .npz file is a zip archive of .npy arrays, which NumPy's `savez` (and `lightglue extract`) does not compress.

#include "features.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

namespace {

using Bytes = std::string;

struct Array {
  std::string dtype;
  std::vector<size_t> shape;
  Bytes content;

  size_t size() const {
    size_t product = 1;
    for (size_t edge : shape) product *= edge;
    return product;
  }
};

// Little-endian numbers and stretches of bytes out of a buffer, never beyond its end.
class Reader {
 public:
  explicit Reader(const Bytes& bytes, size_t at = 0) : bytes_(bytes), at_(at) {}

  Bytes take(size_t count) {
    if (at_ > bytes_.size() || count > bytes_.size() - at_) throw std::runtime_error("it ends too early");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }

  uint32_t number(size_t width) {
    const Bytes taken = take(width);
    uint32_t value = 0;
    for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(taken[i]);
    return value;
  }

  void skip(size_t count) { take(count); }

 private:
  const Bytes& bytes_;
  size_t at_;
};

// The files of a zip archive by name, as far as they are stored without compression.
std::map<std::string, Bytes> read_zip(const Bytes& archive) {
  const size_t end = archive.rfind("PK\5\6");
  if (end == Bytes::npos) throw std::runtime_error("it is no .npz file");
  Reader tail(archive, end + 10);
  const uint32_t entries = tail.number(2);
  tail.skip(4);
  Reader directory(archive, tail.number(4));

  std::map<std::string, Bytes> files;
  for (uint32_t i = 0; i < entries; ++i) {
    if (directory.take(4) != "PK\1\2") throw std::runtime_error("its directory is damaged");
    directory.skip(6);
    const uint32_t method = directory.number(2);
    directory.skip(8);
    const uint32_t size = directory.number(4);
    directory.skip(4);  // the same, since nothing is compressed
    const uint32_t name_length = directory.number(2), extra_length = directory.number(2);
    const uint32_t comment_length = directory.number(2);
    directory.skip(8);
    const uint32_t offset = directory.number(4);
    const std::string name = directory.take(name_length);
    directory.skip(extra_length + comment_length);
    if (method != 0) throw std::runtime_error("its arrays are compressed; write it with numpy.savez");

    Reader local(archive, offset + 26);
    const uint32_t before = local.number(2) + local.number(2);  // the name and what else stands before the content
    files[name] = Reader(archive, offset + 30 + before).take(size);
  }
  return files;
}

// The text after a key of an .npy header, which is a Python dictionary such as
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }
std::string after(const std::string& header, const std::string& key) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) throw std::runtime_error("an array has no " + key);
  const size_t value = header.find_first_not_of(' ', at + key.size() + 3);
  return value == std::string::npos ? "" : header.substr(value);
}

Array read_npy(const Bytes& file) {
  Reader reader(file);
  if (reader.take(6) != "\x93NUMPY") throw std::runtime_error("one of its arrays is no .npy file");
  const uint32_t version = reader.number(1);
  reader.skip(1);
  const uint32_t header_length = reader.number(version == 1 ? 2 : 4);
  const std::string header = reader.take(header_length);

  Array array;
  const std::string dtype = after(header, "descr"), shape = after(header, "shape");
  if (dtype.size() < 2 || shape.empty()) throw std::runtime_error("an array's header is damaged");
  array.dtype = dtype.substr(1, dtype.find('\'', 1) - 1);
  for (size_t i = 1; i < shape.size() && shape[i] != ')';) {
    size_t digits = 0;
    if (std::isdigit(static_cast<unsigned char>(shape[i]))) array.shape.push_back(std::stoul(shape.substr(i), &digits));
    i += digits > 0 ? digits : 1;
  }
  if (array.shape.size() > 1 && after(header, "fortran_order").rfind("False", 0) != 0) {
    throw std::runtime_error("an array is stored column by column; write it with numpy.ascontiguousarray");
  }
  const size_t start = (version == 1 ? 10 : 12) + header_length;
  array.content = file.substr(start);
  return array;
}

class Npz {
 public:
  explicit Npz(const Bytes& file) : files_(read_zip(file)) {}

  bool has(const std::string& name) const { return files_.count(name + ".npy") > 0; }

  Array array(const std::string& name) const {
    const auto found = files_.find(name + ".npy");
    if (found == files_.end()) throw std::runtime_error("it has no " + name);
    return read_npy(found->second);
  }

  // A float32 or float16-free array of any shape; float64 and integers are not what `lightglue extract` writes.
  std::vector<float> floats(const std::string& name, std::vector<size_t>& shape) const {
    const Array found = array(name);
    if (found.dtype != "<f4") throw std::runtime_error(name + " is " + found.dtype + "; store it as float32");
    if (found.content.size() != found.size() * sizeof(float)) throw std::runtime_error(name + " is cut off");
    std::vector<float> values(found.size());
    std::memcpy(values.data(), found.content.data(), found.content.size());
    for (float value : values) {
      if (!std::isfinite(value)) throw std::runtime_error(name + " holds NaN or infinity");
    }
    shape = found.shape;
    return values;
  }

  // A string, which NumPy stores as UTF-32.
  std::string text(const std::string& name) const {
    const Array found = array(name);
    std::string letters;
    for (size_t i = 0; i + 3 < found.content.size(); i += 4) {
      if (found.content[i] != '\0') letters += found.content[i];
    }
    return letters;
  }

 private:
  std::map<std::string, Bytes> files_;
};

Features parse(const Bytes& file) {
  const Npz npz(file);
  Features features;
  std::vector<size_t> keypoints, descriptors, size;
  features.keypoints = npz.floats("keypoints", keypoints);
  features.descriptors = npz.floats("descriptors", descriptors);
  features.image_size = npz.floats("image_size", size);
  if (npz.has("features")) features.kind = npz.text("features");
  if (keypoints.size() != 2 || keypoints[1] != 2) throw std::runtime_error("keypoints are not of shape (N, 2)");
  if (descriptors.size() != 2 || descriptors[0] != keypoints[0]) {
    throw std::runtime_error("descriptors are not of shape (N, D), with a row for each keypoint");
  }
  if (features.image_size.size() != 2) throw std::runtime_error("image_size is not (width, height)");
  features.count = keypoints[0];
  features.length = descriptors[1];
  for (auto [name, values] : {std::pair{"scales", &features.scales}, std::pair{"oris", &features.oris}}) {
    if (!npz.has(name)) continue;
    std::vector<size_t> shape;
    *values = npz.floats(name, shape);
    if (values->size() != features.count) throw std::runtime_error(std::string(name) + " are not one a keypoint");
  }
  return features;
}

}  // namespace

Features read_features(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + ": there is no such file, or it cannot be read");
  const Bytes file{std::istreambuf_iterator<char>(stream), {}};
  try {
    return parse(file);
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}
