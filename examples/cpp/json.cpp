#include "json.hpp"

#include <cctype>
#include <cstdlib>
#include <stdexcept>

class JsonParser {
 public:
  explicit JsonParser(const std::string& text) : text_(text) {}

  Json whole() {
    Json found = value(0);
    if (next() != '\0') fail();
    return found;
  }

 private:
  static constexpr int kDeepest = 64;

  [[noreturn]] void fail() const { throw std::runtime_error("no JSON at character " + std::to_string(at_)); }

  // The next character that is no space, or 0 at the end.
  char next() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool took(char wanted) {
    if (next() != wanted) return false;
    ++at_;
    return true;
  }

  void word(const std::string& wanted) {
    if (text_.compare(at_, wanted.size(), wanted) != 0) fail();
    at_ += wanted.size();
  }

  std::string string() {
    if (!took('"')) fail();
    std::string found;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') {
        if (++at_ == text_.size() || text_[at_] == 'u') fail();  // names of files here are plain
        found += text_[at_] == 'n' ? '\n' : text_[at_] == 't' ? '\t' : text_[at_];
      } else {
        found += text_[at_];
      }
    }
    if (!took('"')) fail();
    return found;
  }

  Json value(int depth) {
    if (depth > kDeepest) fail();
    Json found;
    const char first = next();
    if (first == '{') {
      found.kind_ = Json::Kind::object;
      ++at_;
      for (bool more = !took('}'); more; more = !took('}')) {
        if (!found.members_.empty() && !took(',')) fail();
        const std::string name = string();
        if (!took(':')) fail();
        found.members_[name] = value(depth + 1);
      }
    } else if (first == '[') {
      found.kind_ = Json::Kind::list;
      ++at_;
      for (bool more = !took(']'); more; more = !took(']')) {
        if (!found.items_.empty() && !took(',')) fail();
        found.items_.push_back(value(depth + 1));
      }
    } else if (first == '"') {
      found.kind_ = Json::Kind::text;
      found.text_ = string();
    } else if (first == 't' || first == 'f') {
      found.kind_ = Json::Kind::number;
      found.number_ = first == 't';
      word(first == 't' ? "true" : "false");
    } else if (first == 'n') {
      word("null");
    } else {
      found.kind_ = Json::Kind::number;
      const char* begin = text_.c_str() + at_;
      char* end = nullptr;
      found.number_ = std::strtod(begin, &end);
      if (end == begin) fail();
      at_ += static_cast<size_t>(end - begin);
    }
    return found;
  }

  const std::string& text_;
  size_t at_ = 0;
};

Json Json::parse(const std::string& text) { return JsonParser(text).whole(); }

const Json& Json::operator[](const std::string& name) const {
  const auto found = members_.find(name);
  if (found == members_.end()) throw std::runtime_error("there is no \"" + name + "\"");
  return found->second;
}

const std::vector<Json>& Json::items() const {
  if (kind_ != Kind::list) throw std::runtime_error("a list is missing");
  return items_;
}

const std::string& Json::text() const {
  if (kind_ != Kind::text) throw std::runtime_error("a text is missing");
  return text_;
}

double Json::number() const {
  if (kind_ != Kind::number) throw std::runtime_error("a number is missing");
  return number_;
}
