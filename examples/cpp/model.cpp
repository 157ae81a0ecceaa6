#include "model.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>

Runtime::Runtime(int threads) {
  if (OrtGetApiBase()->GetApi(ORT_API_VERSION) == nullptr) {
    throw std::runtime_error(std::string("the library of ONNX Runtime is version ") +
                             OrtGetApiBase()->GetVersionString() +
                             ", which is older than the headers this program was built with");
  }
  env = Ort::Env(ORT_LOGGING_LEVEL_ERROR, "lightglue");
  options = Ort::SessionOptions();
  options.SetIntraOpNumThreads(threads);
  // Trained attention is full of denormal numbers, at which Intel's CPUs are ten times slower.
  options.AddConfigEntry("session.set_denormal_as_zero", "1");
  options.SetInterOpNumThreads(1);
}

Ort::Value make_tensor(const std::vector<float>& values, const Shape& shape) {
  Ort::AllocatorWithDefaultOptions allocator;
  Ort::Value tensor = Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size());
  std::copy(values.begin(), values.end(), tensor.GetTensorMutableData<float>());
  return tensor;
}

Ort::Value take_rows(const Ort::Value& tensor, const std::vector<int64_t>& indices) {
  const auto info = tensor.GetTensorTypeAndShapeInfo();
  Shape shape = info.GetShape();
  const size_t width = info.GetElementCount() / static_cast<size_t>(std::max<int64_t>(shape[0], 1));
  shape[0] = static_cast<int64_t>(indices.size());

  Ort::AllocatorWithDefaultOptions allocator;
  Ort::Value taken = Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size());
  const float* from = tensor.GetTensorData<float>();
  float* to = taken.GetTensorMutableData<float>();
  for (int64_t index : indices) to = std::copy_n(from + static_cast<size_t>(index) * width, width, to);
  return taken;
}

Model::Model(Runtime& runtime, const std::string& path) : path_(path) {
  if (!std::ifstream(path)) throw std::runtime_error(path + ": there is no such file, or it cannot be read");
  try {
    session_ = Ort::Session(runtime.env, std::basic_string<ORTCHAR_T>(path.begin(), path.end()).c_str(),
                            runtime.options);
  } catch (const Ort::Exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

std::vector<Ort::Value> Model::run(const Named& inputs, const std::vector<const char*>& outputs) {
  // The C++ API takes values, which cannot be copied; the C API takes pointers.
  std::vector<const char*> names;
  std::vector<const OrtValue*> values;
  for (const auto& [name, value] : inputs) {
    names.push_back(name);
    values.push_back(*value);
  }
  std::vector<OrtValue*> found(outputs.size(), nullptr);
  OrtStatus* status = Ort::GetApi().Run(session_, nullptr, names.data(), values.data(), values.size(), outputs.data(),
                                        outputs.size(), found.data());
  std::vector<Ort::Value> owned;
  for (OrtValue* value : found) owned.emplace_back(value);
  try {
    Ort::ThrowOnError(status);
  } catch (const Ort::Exception& error) {
    throw std::runtime_error(path_ + ": " + error.what());
  }
  return owned;
}

std::string Model::metadata(const std::string& key) const {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto found = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(key.c_str(), allocator);
  return found ? found.get() : "";
}
