// A model file in ONNX Runtime.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// What all models of a program share. Throws std::runtime_error where the library is older than the headers.
struct Runtime {
  explicit Runtime(int threads);

  Ort::Env env{nullptr};
  Ort::SessionOptions options{nullptr};
};

using Shape = std::vector<int64_t>;
using Named = std::vector<std::pair<const char*, const Ort::Value*>>;

// A tensor with memory of its own.
Ort::Value make_tensor(const std::vector<float>& values, const Shape& shape);

// The rows at `indices` of a tensor of float32 (rows, ...).
Ort::Value take_rows(const Ort::Value& tensor, const std::vector<int64_t>& indices);

class Model {
 public:
  // Throws std::runtime_error with the file's name.
  Model(Runtime& runtime, const std::string& path);

  // Runs the model on inputs by name; the tensors of `outputs`, in that order.
  std::vector<Ort::Value> run(const Named& inputs, const std::vector<const char*>& outputs);

  // An entry of the metadata, or "".
  std::string metadata(const std::string& key) const;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  Ort::Session session_{nullptr};
};
