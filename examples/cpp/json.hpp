// As much of JSON as a manifest and the metadata of a model need.
#pragma once

#include <map>
#include <string>
#include <vector>

class Json {
 public:
  // Throws std::runtime_error for text that is no JSON.
  static Json parse(const std::string& text);

  // Each throws std::runtime_error where the value is of another kind, or has no such member.
  const Json& operator[](const std::string& name) const;
  const std::vector<Json>& items() const;
  const std::string& text() const;
  double number() const;

  bool has(const std::string& name) const { return members_.count(name) > 0; }

 private:
  friend class JsonParser;
  enum class Kind { null, number, text, list, object } kind_ = Kind::null;  // true and false are the numbers 1 and 0
  double number_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::map<std::string, Json> members_;
};
